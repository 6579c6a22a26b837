from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st

from neurolm.datasets.arrays import read_csv, read_mat, recording_of
from neurolm.eeg.recording import RecordingError


def test_mat_variables_and_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"signal": np.ones((2, 3)), "rate": 100.0})
    assert read_mat(path, ["signal"])["signal"].shape == (2, 3)
    with pytest.raises(RecordingError, match=r"a\.mat: no variable cnt; the file has signal, rate"):
        read_mat(path, ["signal", "cnt"])
    with pytest.raises(RecordingError, match=r"b\.mat: no such recording"):
        read_mat(tmp_path / "b.mat", ["x"])
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RecordingError, match=r"a\.mat: not a readable MATLAB file"):
        read_mat(path, ["signal"])


def test_matlab_7_3_says_what_to_do(tmp_path: Path) -> None:
    header = b"MATLAB 7.3 MAT-file".ljust(124, b" ") + b"\0\x02IM"
    (tmp_path / "a.mat").write_bytes(header + b"\x89HDF\r\n\x1a\n".ljust(512, b"\0"))
    with pytest.raises(RecordingError, match=r"saved as MATLAB 7\.3; save it again in MATLAB with -v7"):
        read_mat(tmp_path / "a.mat", ["x"])


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
