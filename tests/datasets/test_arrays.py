from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurolm.datasets.arrays import read_csv, recording_of
from neurolm.eeg.recording import RecordingError


def test_csv_columns_by_name_and_by_number(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,C3,C4\na,1,2.5\nb,3,4\n")
    np.testing.assert_array_equal(read_csv(path, ["C4", "C3"]), [[2.5, 4], [1, 3]])
    with pytest.raises(RecordingError, match=r"a\.csv: not the expected table .*Pz"):
        read_csv(path, ["Pz"])
    with pytest.raises(RecordingError, match=r"a\.csv: not the expected table"):
        read_csv(path, ["id"])
    path.write_text("0,1,2.5\n1,3,4\n")
    np.testing.assert_array_equal(read_csv(path, [1, 2]), [[1, 3], [2.5, 4]])
    with pytest.raises(RecordingError, match=r"no such recording"):
        read_csv(tmp_path / "b.csv", [1])


@given(st.text(max_size=40))
def test_any_text_is_a_table_or_refused(text: str) -> None:
    import os

    path = Path(os.environ["NEUROLM_HOME"]) / "a.csv"
    path.write_text(text)
    try:
        assert len(read_csv(path, ["C3", "C4"])) == 2
    except RecordingError as error:
        assert "a.csv" in str(error)


def test_an_array_is_checked_as_a_file_is() -> None:
    signal = np.random.default_rng(0).normal(0, 10, (2, 500))
    recording = recording_of(Path("a.mat"), signal, 250, ["EEG C3", "cz"])
    assert recording.channels == ("C3", "CZ")
    assert recording.duration_s == 2
    for wrong, words in [
        (signal[:1], r"shape \(1, 500\); expected \(2 channels, times\)"),
        (signal[:, :0], "shape"),
        (signal[0], "shape"),
        (signal * 1e-6, "no EEG"),
        (signal * 1e6, "no EEG"),
    ]:
        with pytest.raises(RecordingError, match=words):
            recording_of(Path("a.mat"), wrong, 250, ["C3", "CZ"])
