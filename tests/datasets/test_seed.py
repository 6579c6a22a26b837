from pathlib import Path

import numpy as np
import pytest

from neurolm.datasets import LAYOUTS
from neurolm.datasets.dataset import SourceFile
from neurolm.eeg.recording import RecordingError
from tests.eeg.cnt import write_cnt

SEED = LAYOUTS["seed"]


@pytest.fixture(autouse=True)
def slow_files_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions of an hour are written at 10 Hz, to be small."""
    monkeypatch.setattr("neurolm.eeg.recording.RATE_RANGE_HZ", (5.0, 2000.0))


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> SourceFile:
    """A whole session, slowly recorded."""
    path = tmp_path_factory.mktemp("seed") / "1_1.cnt"
    write_cnt(path, ["M1", *SEED.channels[::-1], "HEO"], duration_s=3_990, sampling_rate_hz=10)
    return SEED.find(path.parent)[0]


def test_parts_make_up_the_session_and_hold_their_clips(session: SourceFile) -> None:
    whole = SEED.read(session)
    parts = {split: (source, SEED.read(source)) for source, split in SEED.paper_split([session])}
    signal = np.concatenate([recording.signal for _, recording in parts.values()], axis=1)
    np.testing.assert_array_equal(signal, whole.signal)
    found = [window for source, recording in parts.values() for window in SEED.windows(source, recording)[0]]
    expected, dropped = SEED.windows(session, whole)
    assert not dropped
    assert len(found) == len(expected) == 855
    for one, other in zip(found, expected, strict=True):
        assert (one.start_s, one.label) == (other.start_s, other.label)
        np.testing.assert_array_equal(one.signal, other.signal)
    assert len({source.recording for source, _ in parts.values()}) == 3


def test_a_session_that_was_cut_off(tmp_path: Path) -> None:
    write_cnt(tmp_path / "1_1.cnt", SEED.channels, duration_s=260, sampling_rate_hz=10)
    (source,) = SEED.find(tmp_path)
    windows, dropped = SEED.windows(source, SEED.read(source))
    assert len(windows) == (260 - 24) // 4
    assert dropped["clip beyond the end of the recording"] == 855 - len(windows)
    test_part = SEED.paper_split([source])[-1][0]
    with pytest.raises(RecordingError, match="260 s long, ends before its test clips"):
        SEED.read(test_part)
