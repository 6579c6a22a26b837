import json
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from neurolm.eeg.arrays import ArrayFormat, read_mat
from neurolm.eeg.recording import RecordingError, read_recording

SIGNAL = np.random.default_rng(0).normal(0, 10, (3, 1000))
NAMES = ("Fp1", "EEG Cz", "O2")
DECLARED = ArrayFormat(sampling_rate_hz=250, unit="uV", channels=NAMES)


def written(path: Path, signal: np.ndarray = SIGNAL) -> Path:
    if path.suffix == ".npy":
        np.save(path, signal)
    elif path.suffix == ".npz":
        np.savez(path, eeg=signal)
    elif path.suffix == ".mat":
        savemat(path, {"eeg": signal, "subject": 5})
    else:
        delimiter = "\t" if path.suffix == ".tsv" else ","
        np.savetxt(path, signal.T, delimiter=delimiter, header=delimiter.join(NAMES), comments="")
    return path


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.mat", "a.csv", "a.tsv"])
def test_arrays_become_recordings(tmp_path: Path, name: str) -> None:
    recording = read_recording(written(tmp_path / name), ["O2", "Cz"], arrays=DECLARED)
    assert (recording.channels, recording.sampling_rate_hz, recording.left_out) == (("O2", "CZ"), 250, ("Fp1",))
    np.testing.assert_allclose(recording.signal, SIGNAL[[2, 1]], rtol=1e-9)


@pytest.mark.parametrize(("unit", "scale"), [("V", 1e-6), ("mV", 1e-3), ("nV", 1e3), (0.1, 10.0)])
def test_units(tmp_path: Path, unit: str | float, scale: float) -> None:
    declared = ArrayFormat(sampling_rate_hz=250, unit=unit, channels=NAMES)  # type: ignore[arg-type]
    recording = read_recording(written(tmp_path / "a.npz", SIGNAL * scale), arrays=declared)
    np.testing.assert_allclose(recording.signal, SIGNAL, rtol=1e-9)


def test_a_wrong_unit_is_found(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="typical amplitude"):
        read_recording(written(tmp_path / "a.npz", SIGNAL * 1e-6), arrays=DECLARED)


def test_a_table_names_its_channels_itself(tmp_path: Path) -> None:
    declared = ArrayFormat(sampling_rate_hz=250, unit="uV")
    assert read_recording(written(tmp_path / "a.csv"), arrays=declared).channels == ("FP1", "CZ", "O2")


def test_a_sidecar_says_it_for_one_file(tmp_path: Path) -> None:
    path = written(tmp_path / "a.npz")
    path.with_suffix(".json").write_text(json.dumps({"sampling_rate_hz": 500, "unit": "uV", "channels": NAMES}))
    assert read_recording(path).sampling_rate_hz == 500
    assert read_recording(path, arrays=DECLARED).sampling_rate_hz == 500
    path.with_suffix(".json").write_text('{"rate": 500}')
    with pytest.raises(RecordingError, match=r"a\.npz: its \.json file: rate: no such setting"):
        read_recording(path, arrays=DECLARED)


def test_what_is_not_declared_is_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path / "a.npz")
    with pytest.raises(RecordingError, match=r"a\.npz: an array file says no sampling_rate_hz, unit, channels; give"):
        read_recording(path)
    with pytest.raises(RecordingError, match=r"says no unit"):
        read_recording(path, arrays=ArrayFormat(sampling_rate_hz=250, channels=NAMES))


def test_axes(tmp_path: Path) -> None:
    square = np.random.default_rng(1).normal(0, 10, (3, 3))
    with pytest.raises(RecordingError, match=r"which axis of \(3, 3\) holds the 3 channels is not clear"):
        read_recording(written(tmp_path / "a.npz", square), arrays=DECLARED)
    with pytest.raises(RecordingError, match="is not clear"):
        read_recording(written(tmp_path / "a.npz", SIGNAL[:2]), arrays=DECLARED)
    for axes, signal in (("channels times", SIGNAL), ("times channels", SIGNAL.T)):
        declared = ArrayFormat(sampling_rate_hz=250, unit="uV", channels=NAMES, axes=axes)  # type: ignore[arg-type]
        np.testing.assert_allclose(read_recording(written(tmp_path / "a.npz", signal), arrays=declared).signal, SIGNAL)


def test_variables_and_structs(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    savemat(
        path, {"o": {"data": SIGNAL.T, "marker": np.zeros((1000, 1))}, "x": np.zeros((2, 2)), "y": np.zeros((2, 2))}
    )
    with pytest.raises(RecordingError, match=r"holds 2 two-dimensional arrays \(o, x, y\); declare `variable`"):
        read_recording(path, arrays=DECLARED)

    def declared(variable: str) -> ArrayFormat:
        return ArrayFormat(sampling_rate_hz=250, unit="uV", channels=NAMES, variable=variable)

    np.testing.assert_allclose(read_recording(path, arrays=declared("o.data")).signal, SIGNAL)
    with pytest.raises(RecordingError, match=r"'o\.signal': there is no field 'signal'"):
        read_recording(path, arrays=declared("o.signal"))
    with pytest.raises(RecordingError, match=r"holds no variable 'z'; found o, x, y"):
        read_recording(path, arrays=declared("z"))


def test_empty_cells_are_gaps_and_words_are_errors(tmp_path: Path) -> None:
    lines = written(tmp_path / "a.csv").read_text().splitlines()
    (tmp_path / "b.csv").write_text("\n".join([*lines[:500], "1,,2", *lines[500:]]))
    recording = read_recording(tmp_path / "b.csv", arrays=DECLARED)
    assert np.argwhere(np.isnan(recording.signal)).tolist() == [[1, 499]]
    (tmp_path / "c.csv").write_text("\n".join([*lines[:500], "1,high,2", *lines[500:]]))
    with pytest.raises(RecordingError, match=r"c\.csv: this array file cannot be read"):
        read_recording(tmp_path / "c.csv", arrays=DECLARED)


@pytest.mark.parametrize("name", ["a.npz", "a.npy", "a.mat", "a.csv"])
def test_broken_files_and_objects(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name)
    path.write_bytes(path.read_bytes()[:100] if name != "a.csv" else b"")
    with pytest.raises(RecordingError, match=rf"{name}: "):
        read_recording(path, arrays=DECLARED)


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", eeg=np.array([[object()]]))
    with pytest.raises(RecordingError, match="cannot be read"):
        read_recording(tmp_path / "a.npz", arrays=DECLARED)


def test_mat_variables_and_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    savemat(path, {"signal": np.ones((2, 3)), "rate": 100.0})
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
