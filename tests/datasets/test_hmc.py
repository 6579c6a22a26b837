from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from neurolm.datasets import LAYOUTS
from neurolm.datasets.dataset import DataSetError, SourceFile
from neurolm.eeg.preprocessing import PreprocessingConfig, preprocess
from neurolm.eeg.recording import Recording
from tests.eeg.edf import write_edf

HMC = LAYOUTS["hmc"]
HEADER = "Date, Time, Recording onset, Duration, Annotation, Linked channel\n"
CHANNELS = ["EEG C4-M1", "EEG F4-M1", "EEG O2-M1", "EEG C3-M2", "EMG chin", "EOG E1-M2", "EOG E2-M2", "ECG"]


def scored(folder: Path, rows: list[tuple[float, float, str]]) -> SourceFile:
    folder.mkdir(exist_ok=True)
    text = "".join(f"2001-01-01, 23:00:00, {onset}, {duration}, {text},\n" for onset, duration, text in rows)
    (folder / "SN001_sleepscoring.txt").write_text(HEADER + text)
    return SourceFile(folder / "SN001.edf", "recordings/SN001.edf", "SN001")


def recording(duration_s: float) -> Recording:
    return Recording(np.zeros((4, round(duration_s * 200)), np.float32), 200, ("F4", "C4", "O2", "C3"))


def test_each_epoch_is_a_window_with_its_stage(tmp_path: Path) -> None:
    stages = ["W", "N1", "N2", "N3", "R"]
    source = scored(tmp_path, [(30 * place, 30, f"Sleep stage {stage}") for place, stage in enumerate(stages)])
    windows, dropped = HMC.windows(source, recording(150))  # the last epoch ends where the recording ends
    assert [(window.start_s, window.label) for window in windows] == [
        (0, "W"), (30, "N1"), (60, "N2"), (90, "N3"), (120, "R"),
    ]  # fmt: skip
    assert all(window.signal.shape == (4, 6000) for window in windows)
    assert not dropped


def test_what_is_no_stage_is_counted(tmp_path: Path) -> None:
    rows = [
        (0, 30, "Sleep stage W"),
        (12.5, 0, "Lights off@@EEG F4-A1"),
        (30, 30, "Sleep stage ?"),
        (60, 30, "Movement"),
        (90, 30, "Sleep stage R"),
        (120, 30, "Sleep stage R"),
    ]
    windows, dropped = HMC.windows(scored(tmp_path, rows), recording(149))
    assert [window.label for window in windows] == ["W", "R"]
    assert dropped == Counter({"no scored sleep stage": 2, "epoch beyond the end of the recording": 1})


def test_real_layout(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    write_edf(folder / "SN001.edf", CHANNELS, duration_s=90, sampling_rate_hz=256)
    write_edf(folder / "SN002.edf", CHANNELS, duration_s=30, sampling_rate_hz=256)
    write_edf(folder / "SN001_sleepscoring.edf", CHANNELS[:1], duration_s=1)  # a sidecar of release 1.1, no recording
    scored(folder, [(0, 30, "Sleep stage N2"), (30, 30, "Sleep stage N3")])
    sources = HMC.find(tmp_path)
    assert [(source.recording, source.subject, source.label) for source in sources] == [
        ("recordings/SN001.edf", "SN001", None),
        ("recordings/SN002.edf", "SN002", None),
    ]
    result = preprocess(HMC.read(sources[0]), PreprocessingConfig(), HMC.mains_hz)
    windows, _ = HMC.windows(sources[0], result)
    assert [window.label for window in windows] == ["N2", "N3"]
    assert windows[0].channel_indices == (21, 43, 82, 39)
    with pytest.raises(DataSetError, match=r"SN002_sleepscoring\.txt: the sleep scoring .* missing"):
        HMC.windows(sources[1], result)


def test_broken_sidecars(tmp_path: Path) -> None:
    source = scored(tmp_path, [])
    sidecar = tmp_path / "SN001_sleepscoring.txt"
    sidecar.write_text("onset,stage\n0,W\n")
    with pytest.raises(DataSetError, match=r"no column Annotation, Duration, Recording onset; found 'onset', 'stage'"):
        HMC.windows(source, recording(30))
    sidecar.write_text(HEADER + "2001-01-01, 23:00:00, soon, 30, Sleep stage W,\n")
    with pytest.raises(DataSetError, match="line 2"):
        HMC.windows(source, recording(30))
