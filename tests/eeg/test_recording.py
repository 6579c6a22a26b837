from pathlib import Path

import edfio
import numpy as np
import pytest

from neurolm.eeg.amplitude import typical_amplitude_uv
from neurolm.eeg.recording import Recording, RecordingError, read_recording
from tests.eeg.edf import write_edf


def test_eegmat_is_in_microvolts_in_the_order_asked(test_data: Path) -> None:
    path = test_data / "eegmat" / "Subject05_2.edf"
    recording = read_recording(path, picks=["EEG Cz", "O1", "FP1"])
    assert recording.channels == ("CZ", "O1", "FP1")
    assert recording.sampling_rate_hz == 500
    assert recording.duration_s == 62
    own = edfio.read_edf(path)  # an independent reader
    for row, name in zip(recording.signal, ["EEG Cz", "EEG O1", "EEG Fp1"], strict=True):
        np.testing.assert_allclose(row, own.get_signal(name).data, atol=1e-6)
    assert "ECG ECG" in recording.left_out


def test_without_picks_every_electrode_is_read_and_the_rest_is_listed(test_data: Path) -> None:
    recording = read_recording(test_data / "eegmat" / "Subject05_2.edf")
    assert len(recording.channels) == 19
    assert recording.left_out == ("EEG A2-A1", "ECG ECG")


def test_annotations_of_motor_imagery(test_data: Path) -> None:
    recording = read_recording(test_data / "eegmmidb" / "S001" / "S001R04.edf")
    assert len(recording.channels) == 64
    assert [annotation.description for annotation in recording.annotations[:3]] == ["T0", "T2", "T0"]
    assert recording.annotations[0].duration_s == pytest.approx(4.2)


@pytest.mark.parametrize(
    ("name", "num_channels", "rate_hz"),
    [
        ("brainvision/testbva.vhdr", 29, 200),
        ("eeglab_set/eeglab_data.set", 30, 128),
        ("nihon/MB0400FU.EEG", 21, 200),
        ("bdf/mne_test.bdf", 66, 2048),
    ],
)
def test_other_containers(test_data: Path, name: str, num_channels: int, rate_hz: float) -> None:
    recording = read_recording(test_data / "formats" / name)
    assert len(recording.channels) == num_channels
    assert recording.sampling_rate_hz == rate_hz
    assert 1 < (typical_amplitude_uv(recording.signal, rate_hz) or 0) < 200


def test_missing_file() -> None:
    with pytest.raises(RecordingError, match=r"nowhere\.edf: no such recording"):
        read_recording("nowhere.edf")


def test_missing_channel_names_file_channel_and_what_there_is(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "a.edf", ["EEG Fp1", "EEG Cz"])
    with pytest.raises(RecordingError, match=r"a\.edf: channel 'O1' is missing; the file has 'EEG Fp1', 'EEG Cz'"):
        read_recording(path, picks=["O1"])


def test_unknown_pick_gives_the_nearest_names(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "a.edf", ["EEG Fp1", "EEG Cz"])
    with pytest.raises(RecordingError, match=r"a\.edf: channel 'FPP1' .*nearest: FP1"):
        read_recording(path, picks=["FPP1"])


def test_unknown_channel_picked_by_its_own_name(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "a.edf", ["EEG Fp1", "ECG ECG"])
    with pytest.raises(RecordingError, match=r"a\.edf: channel 'ECG ECG' is not in the electrode vocabulary"):
        read_recording(path, picks=["ECG ECG"])


def test_no_electrode_at_all(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "a.edf", ["ECG", "Resp"])
    with pytest.raises(RecordingError, match=r"a\.edf: no channel .*the file has 'ECG', 'Resp'"):
        read_recording(path)


def test_one_electrode_under_two_references_is_ambiguous(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "a.edf", ["EEG C4-M1", "EEG C4-M2"])
    with pytest.raises(RecordingError, match="same electrode C4"):
        read_recording(path)
    with pytest.raises(RecordingError, match="could be 'EEG C4-M1', 'EEG C4-M2'"):
        read_recording(path, picks=["C4"])
    assert read_recording(path, picks=["EEG C4-M2"]).channels == ("C4",)


@pytest.mark.parametrize(
    ("unit", "scale", "message"),
    [
        ("uV", 1e-6, "typical amplitude .* µV is no EEG"),  # volts under a microvolt header
        ("uV", 1e-3, "typical amplitude .* µV is no EEG"),
        ("mV", 1, "typical amplitude .* µV is no EEG"),  # microvolts under a millivolt header
        ("", 1, "'EEG Fp1' has no known physical dimension"),
        ("C", 1, "'EEG Fp1' has no known physical dimension"),
    ],
)
def test_wrong_unit_is_refused(tmp_path: Path, unit: str, scale: float, message: str) -> None:
    path = write_edf(tmp_path / "a.edf", ["EEG Fp1", "EEG Cz"], unit=unit, scale=scale)
    with pytest.raises(RecordingError, match=rf"a\.edf: .*{message}"):
        read_recording(path)


@pytest.mark.parametrize(("unit", "scale"), [("uV", 1), ("mV", 1e-3), ("V", 1e-6)])
def test_declared_units_all_become_microvolts(tmp_path: Path, unit: str, scale: float) -> None:
    path = write_edf(tmp_path / "a.edf", ["EEG Fp1", "EEG Cz"], unit=unit, scale=scale)
    assert 5 < read_recording(path).signal.std() < 20


def test_offset_does_not_count_as_amplitude() -> None:
    signal = np.random.default_rng(0).normal(4300, 12, (3, 2000))
    assert typical_amplitude_uv(signal, 200) == pytest.approx(12, rel=0.05)
    assert typical_amplitude_uv(np.full((3, 2000), 7.0), 200) is None


@pytest.mark.parametrize("keep", [0.95, 0.5, 0.01])
def test_truncated_edf(tmp_path: Path, keep: float) -> None:
    path = write_edf(tmp_path / "a.edf", ["EEG Fp1", "EEG Cz"])
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(RecordingError, match=r"a\.edf"):
        read_recording(path)


def test_a_truncated_file_prints_nothing_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_edf(tmp_path / "a.edf", ["EEG Fp1"])
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(RecordingError, match="truncated"):
        read_recording(path)
    assert capfd.readouterr() == ("", "")  # the error says it all


def test_not_an_edf(tmp_path: Path) -> None:
    (tmp_path / "a.edf").write_bytes(b"this is no recording")
    (tmp_path / "b.edf").write_bytes(b"")
    for name in ("a.edf", "b.edf"):
        with pytest.raises(RecordingError, match=name):
            read_recording(tmp_path / name)


def test_recording_knows_its_duration() -> None:
    assert Recording(np.zeros((1, 500)), 250.0, ("CZ",)).duration_s == 2
