import dataclasses
from pathlib import Path

import numpy as np
import pytest

from neurolm.datasets import LAYOUTS
from neurolm.datasets.dataset import SourceFile
from neurolm.eeg.channels import channel_index
from neurolm.eeg.preprocessing import PreprocessingConfig, preprocess
from neurolm.eeg.recording import Recording, RecordingError

MOTOR_IMAGERY = LAYOUTS["motor_imagery"]


def test_files_and_subjects(test_data: Path) -> None:
    sources = MOTOR_IMAGERY.find(test_data / "eegmmidb")
    assert len(sources) == 21
    assert sources[0].recording == "S001/S001R01.edf"
    assert len({source.subject for source in sources}) == 15
    assert {source.label for source in sources} == {None}


@pytest.mark.parametrize(("name", "num_windows"), [("S001/S001R01.edf", 3), ("S088/S088R10.edf", 7)])
def test_real_files_of_both_sampling_rates(test_data: Path, name: str, num_windows: int) -> None:
    source = next(s for s in MOTOR_IMAGERY.find(test_data / "eegmmidb") if s.recording == name)
    recording = preprocess(MOTOR_IMAGERY.read(source), PreprocessingConfig(), MOTOR_IMAGERY.mains_hz)
    windows, dropped = MOTOR_IMAGERY.windows(source, recording)
    assert [window.signal.shape for window in windows] == [(64, 3200)] * num_windows
    assert windows[0].channel_indices[:3] == tuple(channel_index(name) for name in ("FC5", "FC3", "FC1"))
    assert len(set(windows[0].channel_indices)) == 64
    assert not dropped


def test_window_length_is_a_setting() -> None:
    source = SourceFile(Path("S001R01.edf"), "S001R01.edf", "S001")
    recording = Recording(np.zeros((1, 61 * 200), np.float32), 200, ("CZ",))
    windows, _ = dataclasses.replace(MOTOR_IMAGERY, window_s=4.0).windows(source, recording)  # type: ignore[call-arg]
    assert len(windows) == 15
    with pytest.raises(RecordingError, match="shorter than a window of 64 s"):
        dataclasses.replace(MOTOR_IMAGERY, window_s=64.0).windows(source, recording)  # type: ignore[call-arg]
