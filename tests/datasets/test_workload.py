from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from neurolm.datasets import LAYOUTS
from neurolm.datasets.dataset import DataSetError, SourceFile
from neurolm.datasets.splits import SplitConfig, split_subjects
from neurolm.eeg.preprocessing import PreprocessingConfig, preprocess
from neurolm.eeg.recording import Recording, RecordingError
from neurolm.eeg.windows import unusable

WORKLOAD = LAYOUTS["workload"]


def test_files_subjects_and_labels(test_data: Path) -> None:
    sources = WORKLOAD.find(test_data / "eegmat")
    assert len(sources) == 62
    assert sources[3] == SourceFile(
        test_data / "eegmat" / "Subject01_2.edf", "Subject01_2.edf", "Subject01", "arithmetic"
    )
    assert Counter(source.label for source in sources) == {"rest": 31, "arithmetic": 31}
    splits = split_subjects({source.subject for source in sources}, SplitConfig(), WORKLOAD.paper_counts)
    assert Counter(splits.values()) == {"train": 21, "val": 5, "test": 5}


def test_every_file_gives_29_windows(test_data: Path) -> None:
    for source in WORKLOAD.find(test_data / "eegmat"):
        duration_s = read_duration_s(source.path)
        recording = Recording(np.zeros((1, round(duration_s * 200)), np.float32), 200, ("CZ",))
        windows, dropped = WORKLOAD.windows(source, recording)
        assert [window.start_s for window in windows] == [duration_s - 60 + 2 * place for place in range(29)]
        assert not dropped


def read_duration_s(path: Path) -> float:
    header = path.read_bytes()[:256]
    return int(header[236:244]) * float(header[244:252])


@pytest.mark.parametrize("name", ["Subject00_1.edf", "Subject02_1.edf", "Subject02_2.edf"])
def test_real_file_from_header_to_windows(test_data: Path, name: str) -> None:
    source = next(source for source in WORKLOAD.find(test_data / "eegmat") if source.path.name == name)
    recording = preprocess(WORKLOAD.read(source), PreprocessingConfig(), WORKLOAD.mains_hz)
    windows, _ = WORKLOAD.windows(source, recording)
    assert len(windows) == 29
    assert windows[0].channel_indices == (0, 2, 17, 21, 15, 23, 88, 90, 39, 43, 89, 91, 61, 65, 80, 82, 19, 41, 63)
    assert all(window.signal.shape == (19, 800) and unusable(window) is None for window in windows)
    np.testing.assert_array_equal(windows[0].signal[:, 400:], windows[1].signal[:, :400])
    np.testing.assert_array_equal(windows[-1].signal, recording.signal[:, -800:])
    assert {window.label for window in windows} == {"rest" if name.endswith("_1.edf") else "arithmetic"}
    assert 3 < np.std([window.signal for window in windows]) < 30


def test_short_recording_is_refused() -> None:
    source = SourceFile(Path("Subject07_1.edf"), "Subject07_1.edf", "Subject07", "rest")
    with pytest.raises(RecordingError, match=r"Subject07_1\.edf: 59 s long, but the last 60 s"):
        WORKLOAD.windows(source, Recording(np.zeros((1, 59 * 200), np.float32), 200, ("CZ",)))


def test_missing_and_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match=r"nowhere: no such folder.*SubjectNN_1\.edf"):
        WORKLOAD.find(tmp_path / "nowhere")
    (tmp_path / "notes.edf").touch()
    with pytest.raises(DataSetError, match=r"no recording .* found; expected SubjectNN_1\.edf"):
        WORKLOAD.find(tmp_path)
