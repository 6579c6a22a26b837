import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from neurolm.config import UserError
from neurolm.datasets import LAYOUTS
from neurolm.datasets.synthetic import write_demo_recordings
from neurolm.eeg.preprocessing import PreprocessingConfig, preprocess
from neurolm.eeg.recording import RecordingError
from neurolm.eeg.windows import Window

NUM_SUBJECTS = 6
BANDS_HZ = [(0.5, 4), (4, 8), (8, 12), (12, 16), (16, 30), (30, 45)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_demo_recordings(folder, num_subjects=NUM_SUBJECTS, seed=3)
    return folder


def log_band_power(window: Window) -> np.ndarray:
    num_times = window.signal.shape[1]
    frequencies = np.fft.rfftfreq(num_times, 1 / 200)
    power = np.abs(np.fft.rfft(window.signal * np.hanning(num_times))) ** 2
    return np.log(
        [power[:, (low <= frequencies) & (frequencies < high)].mean(axis=1) for low, high in BANDS_HZ]
    ).ravel()


@pytest.mark.parametrize(
    ("layout", "folder", "num_channels", "per_subject"),
    [
        ("workload", "workload", 19, {"rest": 29, "arithmetic": 29}),
        ("hmc", "sleep", 4, {"W": 4, "N1": 4, "N2": 4, "N3": 4, "R": 4}),
    ],
)
def test_classes_are_learnable_across_subjects(
    root: Path, layout: str, folder: str, num_channels: int, per_subject: dict[str, int]
) -> None:
    data_set = LAYOUTS[layout]
    features, labels, subjects, amplitudes, unreadable = [], [], [], {}, []
    for source in data_set.find(root / folder):
        try:
            recording = data_set.read(source)
        except RecordingError:
            unreadable.append(source.recording)
            continue
        recording = preprocess(recording, PreprocessingConfig(), data_set.mains_hz)
        windows, dropped = data_set.windows(source, recording)
        assert not dropped
        assert {window.signal.shape[0] for window in windows} == {num_channels}
        features += [log_band_power(window) for window in windows]
        labels += [window.label for window in windows]
        subjects += [source.subject] * len(windows)
        amplitudes[source.subject] = recording.signal.std()
    assert unreadable == (["Subject00_1.edf"] if layout == "workload" else [])
    assert Counter(labels) == {label: NUM_SUBJECTS * count for label, count in per_subject.items()}
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=500))
    predicted = cross_val_predict(model, np.array(features), labels, groups=subjects, cv=GroupKFold(3))
    assert 0.8 < balanced_accuracy_score(labels, predicted) < 0.995  # clear, but people differ
    assert max(amplitudes.values()) > 1.15 * min(amplitudes.values())
    assert all(3 < amplitude < 60 for amplitude in amplitudes.values())


def test_extra_channels_are_there_as_in_the_published_files(root: Path) -> None:
    header = (root / "workload" / "Subject01_1.edf").read_bytes()[: 256 + 21 * 16].decode("ascii")
    assert header[256:][-32:].split() == ["EEG", "A2-A1", "ECG", "ECG"]
    header = (root / "sleep" / "recordings" / "SN001.edf").read_bytes()[: 256 + 8 * 16].decode("ascii")
    assert "EMG chin" in header


def test_broken_copy_is_recognised(root: Path) -> None:
    workload = LAYOUTS["workload"]
    broken = workload.find(root / "workload")[0]
    assert broken.recording == "Subject00_1.edf"
    with pytest.raises(RecordingError, match="truncated"):
        workload.read(broken)


def test_finished_folder_is_left_as_it_is_and_an_unfinished_one_written_again(tmp_path: Path) -> None:
    write_demo_recordings(tmp_path, num_subjects=1)
    path = tmp_path / "workload" / "Subject01_2.edf"
    content = path.read_bytes()
    path.write_bytes(b"touched")
    write_demo_recordings(tmp_path, num_subjects=1)
    assert path.read_bytes() == b"touched"
    marker = tmp_path / ".synthetic.json"
    marker.write_text(marker.read_text().replace("true", "false"))
    write_demo_recordings(tmp_path, num_subjects=1)
    assert path.read_bytes() == content  # and the same numbers give the same bytes


def test_own_recordings_are_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "workload").mkdir()
    (tmp_path / "workload" / "Subject01_1.edf").write_text("precious")
    with pytest.raises(UserError, match="not synthetic"):
        write_demo_recordings(tmp_path, num_subjects=1)
    assert (tmp_path / "workload" / "Subject01_1.edf").read_text() == "precious"


def test_missing_edfio_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "edfio", None)
    with pytest.raises(UserError, match=r"pip install 'neurolm\[demo\]'"):
        write_demo_recordings(tmp_path, num_subjects=1)
