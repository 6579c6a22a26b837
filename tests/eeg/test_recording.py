from pathlib import Path

import edfio
import mne
import numpy as np
import pytest

from neurolm.eeg.amplitude import typical_amplitude_uv
from neurolm.eeg.arrays import ArrayFormat
from neurolm.eeg.preprocessing import PreprocessingConfig, preprocess
from neurolm.eeg.recording import Recording, RecordingError, read_recording
from neurolm.eeg.scratch import on_disk
from neurolm.eeg.windows import cut, unusable
from tests.eeg.edf import write_discontinuous, write_edf, write_mixed
from tests.eeg.gdf import write_gdf


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
    ("name", "picks", "num_channels", "rate_hz", "num_annotations", "duration_s"),
    [
        ("brainvision/testbva.vhdr", None, 29, 200, 16, 10.56),
        ("brainvision/test.vhdr", ["FP1", "O2"], 2, 1000, 13, 7.9),
        ("eeglab_set/eeglab_data.set", None, 30, 128, 154, 238.3125),
        ("nihon/MB0400FU.EEG", None, 21, 200, 2, 29),
        ("nihon/MB0400FU.EDF", None, 21, 200, 4, 29),
        ("bdf/mne_test.bdf", None, 66, 2048, 0, 1),
        ("bdf/eeglab_test.bdf", {"A1": "FP1", "A16": "OZ"}, 2, 256, 0, 60),
        ("edfplus_sleep/short_psg.edf", {"EEG Fpz-Cz": "FPZ", "EEG Pz-Oz": "PZ"}, 2, 100, 0, 300),
        ("edfplus_sleep/short_psg.bdf", {"EEG Fpz-Cz": "FPZ", "EEG Pz-Oz": "PZ"}, 2, 100, 0, 300),
        ("cnt/scan41_short.cnt", {"1": "FP1", "3": "FP2"}, 2, 400, 6, 7.675),
        ("fif/test_raw.fif", {"EEG 001": "FPZ", "EEG 060": "IZ"}, 2, 600.6, 0, 23.97),
    ],
)  # fmt: skip
def test_every_container(test_data: Path, name: str, picks, num_channels: int, rate_hz: float, num_annotations: int, duration_s: float) -> None:  # type: ignore[no-untyped-def]  # fmt: skip  # noqa: E501
    recording = read_recording(test_data / "formats" / name, picks)
    assert len(recording.channels) == num_channels
    assert recording.sampling_rate_hz == pytest.approx(rate_hz, rel=1e-4)
    assert recording.duration_s == pytest.approx(duration_s, abs=0.01)
    assert len(recording.annotations) == num_annotations
    assert all(0 <= mark.onset_s <= duration_s for mark in recording.annotations)
    assert 1 < (typical_amplitude_uv(recording.signal, rate_hz) or 0) < 200


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("edf/eeglab_test.edf", "constant within every second"),
        ("bdf/eeglab_test.bdf", "BioSemi's positions, not the ears"),
        ("brainvision/test.vhdr", "'CP5' has no known physical dimension"),
        ("brainvision/test.eeg", r"give its \.vhdr file"),
        ("cnt/scan41_short.cnt", "no channel is in the electrode vocabulary; the file has '1', '2'"),
        ("edfplus_sleep/short_psg.edf", "no channel .* the file has 'EEG Fpz-Cz'"),
        ("edfplus_sleep/SC4001EC-Hypnogram.edf", "no channel"),
        ("fif/test_raw.fif", "no channel"),
        ("fif/test-eve.fif", "MNE cannot read this file"),
    ],
)
def test_what_cannot_be_read_as_it_is_gets_a_clear_verdict(test_data: Path, name: str, verdict: str) -> None:
    with pytest.raises(RecordingError, match=verdict) as caught:
        read_recording(test_data / "formats" / name)
    assert name in str(caught.value)


def test_twins_in_two_containers_are_the_same_signal(test_data: Path) -> None:
    nihon, edf = (read_recording(test_data / "formats" / "nihon" / f"MB0400FU.{end}") for end in ("EEG", "EDF"))
    rows = [edf.channels.index(channel) for channel in nihon.channels]
    np.testing.assert_allclose(nihon.signal, edf.signal[rows], atol=0.1)


def test_gdf(tmp_path: Path) -> None:
    recording = read_recording(write_gdf(tmp_path / "a.gdf", ["Fp1", "Cz"]))
    assert (recording.channels, recording.sampling_rate_hz, recording.duration_s) == (("FP1", "CZ"), 200, 10)
    assert recording.signal.std() == pytest.approx(10, rel=0.05)
    assert [(mark.onset_s, mark.description) for mark in recording.annotations] == [(2, "769"), (6, "770")]


def raw_array(
    signal_uv: np.ndarray, annotations: mne.Annotations | None = None, first_samp: int = 0
) -> mne.io.RawArray:
    info = mne.create_info(["Fp1", "Cz"], 200, "eeg", verbose="ERROR")
    raw = mne.io.RawArray(signal_uv * 1e-6, info, first_samp=first_samp, verbose="ERROR")
    return raw if annotations is None else raw.set_annotations(annotations, verbose="ERROR")


def noise(num_times: int = 4000) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 10, (2, num_times))


def test_marks_of_a_fif_file_count_from_its_signal(tmp_path: Path) -> None:
    path = tmp_path / "a_raw.fif"
    raw_array(noise(), mne.Annotations([2.0], [0.5], ["T1"]), first_samp=1000).save(path, verbose="ERROR")
    (mark,) = read_recording(path).annotations
    assert (mark.onset_s, mark.duration_s) == (pytest.approx(2), pytest.approx(0.5))


def test_bad_spans_and_joints_are_gaps(tmp_path: Path) -> None:
    path = tmp_path / "a_raw.fif"
    marks = mne.Annotations([3, 5, 10, 12], [0, 2, 0, 1], ["EDGE boundary", "BAD_muscle", "boundary", "T1"])
    raw_array(noise(), marks).save(path, verbose="ERROR")
    recording = read_recording(path)
    assert recording.breaks_s == (3, 10)
    assert np.flatnonzero(np.isnan(recording.signal[0])).tolist() == list(range(1000, 1400))
    windows = cut(preprocess(recording, PreprocessingConfig(), 50), duration_s=2, stride_s=1)
    lost = [window.start_s for window in windows if unusable(window)]
    assert lost == [2, 4, 5, 6, 9]


def test_gaps_of_an_edf(tmp_path: Path) -> None:
    marks = [(2.5, 0, "a"), (10.25, 0, "b"), (20, 0, "in a gap"), (31.5, 0.25, "c")]
    onsets = [0, 1, 2, 3, 10, 11, 12, 30, 31]
    recording = read_recording(write_discontinuous(tmp_path / "a.edf", onsets, marks))
    assert recording.duration_s == 9
    assert recording.breaks_s == (4, 7)
    assert [mark.onset_s for mark in recording.annotations] == [2.5, 4.25, 7, 8.5]
    whole = read_recording(write_discontinuous(tmp_path / "b.edf", range(9)))
    assert whole.breaks_s == ()
    np.testing.assert_array_equal(whole.signal, recording.signal)


def test_missing_values_are_gaps(tmp_path: Path) -> None:
    signal = noise()
    signal[0, 800] = np.nan
    signal[1, 1000] = np.inf
    np.savez(tmp_path / "a.npz", eeg=signal)
    arrays = ArrayFormat(sampling_rate_hz=200, unit="uV", channels=("Fp1", "Cz"))
    recording = read_recording(tmp_path / "a.npz", arrays=arrays)
    assert np.isnan(recording.signal).sum() == 2
    windows = cut(preprocess(recording, PreprocessingConfig(), 50), duration_s=1, stride_s=1)
    lost = [window.start_s for window in windows if unusable(window)]
    # The piece between the two gaps is a second but one point long and given up.
    assert lost == [4, 5]


def test_channels_keep_the_rate_at_which_they_were_recorded(tmp_path: Path) -> None:
    path = write_mixed(tmp_path / "a.edf", {"Fp1": 200, "Cz": 200, "EMG": 1000})
    recording = read_recording(path)
    assert recording.sampling_rate_hz == 200
    own = edfio.read_edf(path)
    np.testing.assert_allclose(recording.signal[1], own.get_signal("Cz").data, atol=1e-6)
    with pytest.raises(RecordingError, match=r"several sampling rates \(most 200 Hz, 'O1': 100 Hz\); pick"):
        read_recording(write_mixed(tmp_path / "b.edf", {"Fp1": 200, "Cz": 200, "O1": 100}))


def test_an_impossible_rate(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "a.edf", ["Fp1"], sampling_rate_hz=2)
    with pytest.raises(RecordingError, match=r"a\.edf: a sampling rate of 2 Hz is no EEG's"):
        read_recording(path)


def test_large_offsets_do_not_reach_the_windows(tmp_path: Path) -> None:
    signal = noise(12000) + np.array([[4300.0], [-2500.0]])
    raw_array(signal).save(tmp_path / "a_raw.fif", verbose="ERROR")
    raw_array(signal - signal.mean(axis=1, keepdims=True)).save(tmp_path / "b_raw.fif", verbose="ERROR")
    offset, centred = (
        preprocess(read_recording(tmp_path / name), PreprocessingConfig(), 50).signal
        for name in ("a_raw.fif", "b_raw.fif")
    )
    np.testing.assert_allclose(offset, centred, atol=0.5)


def test_triggers_become_annotations(tmp_path: Path) -> None:
    codes = np.zeros((1, 4000))
    codes[0, 400:420], codes[0, 1200:1210] = 3, 7
    info = mne.create_info(["Fp1", "Cz", "Status"], 200, ["eeg", "eeg", "stim"], verbose="ERROR")
    raw = mne.io.RawArray(np.vstack([noise() * 1e-6, codes]), info, first_samp=50, verbose="ERROR")
    raw.save(tmp_path / "a_raw.fif", verbose="ERROR")
    marks = read_recording(tmp_path / "a_raw.fif", triggers="Status").annotations
    assert [(mark.onset_s, mark.description) for mark in marks] == [(2, "3"), (6, "7")]
    with pytest.raises(RecordingError, match="trigger channel 'STI' is missing"):
        read_recording(tmp_path / "a_raw.fif", triggers="STI")


def test_a_declared_scale_mends_a_wrong_unit(tmp_path: Path) -> None:
    volts = write_edf(tmp_path / "a.edf", ["Fp1", "Cz"], unit="uV", scale=1e-6)
    assert 5 < read_recording(volts, scale=1e6).signal.std() < 20
    unknown = write_edf(tmp_path / "b.edf", ["Fp1", "Cz"], unit="adu")
    assert 5 < read_recording(unknown, scale=1e-6).signal.std() < 20
    with pytest.raises(RecordingError, match="typical amplitude"):
        read_recording(unknown, scale=1.0)


def test_names_from_a_sidecar_may_add_but_not_contradict(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "a.edf", ["1", "Cz.", "3"])
    assert read_recording(path, rename=["Fp1", "Cz", "O1"]).channels == ("FP1", "CZ", "O1")
    with pytest.raises(RecordingError, match=r"'Cz\.' is called 'Pz' by its sidecar"):
        read_recording(path, rename=["Fp1", "Pz", "O1"])
    with pytest.raises(RecordingError, match="has 3 channels, but its sidecar names 2"):
        read_recording(path, rename=["Fp1", "Cz"])
    other = write_edf(tmp_path / "b.edf", ["Fp1", "Cz"])
    assert read_recording(other, rename=["Cz", "Fp1"]).channels == ("FP1", "CZ")  # the file knows its own order


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


@pytest.mark.parametrize(
    ("main", "cut_file", "keep"),
    [
        ("brainvision/testbva.vhdr", "brainvision/testbva.dat", 0.6),
        ("eeglab_set/eeglab_data.set", "eeglab_set/eeglab_data.fdt", 0.6),
        ("fif/test_raw.fif", "fif/test_raw.fif", 0.6),
        ("cnt/scan41_short.cnt", "cnt/scan41_short.cnt", 0.3),
        ("nihon/MB0400FU.EEG", "nihon/MB0400FU.EEG", 0.6),
        ("nihon/MB0400FU.EDF", "nihon/MB0400FU.EDF", 0.6),
        ("bdf/mne_test.bdf", "bdf/mne_test.bdf", 0.6),
    ],
)
def test_every_container_cut_short(test_data: Path, tmp_path: Path, main: str, cut_file: str, keep: float) -> None:
    for path in (test_data / "formats" / Path(main).parent).iterdir():
        whole = path.read_bytes()
        is_cut = path.name == Path(cut_file).name
        (tmp_path / path.name).write_bytes(whole[: int(keep * len(whole))] if is_cut else whole)
    picks = {"fif": {"EEG 001": "FPZ"}, "cnt": {"1": "FP1"}}.get(main.split("/")[0])
    with pytest.raises(RecordingError, match=Path(main).name):
        read_recording(tmp_path / Path(main).name, picks)


def test_a_gdf_cut_short(tmp_path: Path) -> None:
    path = write_gdf(tmp_path / "a.gdf", ["Fp1", "Cz"])
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(RecordingError, match=r"a\.gdf"):
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


def test_a_recording_too_long_for_memory_is_read_in_pieces_into_the_same_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_edf(tmp_path / "a.edf", ["Fp1", "O2", "Cz"], duration_s=20)
    whole = read_recording(path)
    monkeypatch.setattr("neurolm.eeg.scratch.WHOLE_BYTES", 1000)
    monkeypatch.setattr("neurolm.eeg.containers.PIECE_BYTES", 50_000)
    pieces = read_recording(path)
    np.testing.assert_array_equal(pieces.signal, whole.signal)
    assert on_disk(pieces.signal)
    assert not on_disk(whole.signal)


def test_channels_of_a_lower_rate_are_read_in_pieces_as_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signals = [
        edfio.EdfSignal(np.random.default_rng(0).normal(0, 10, 20 * rate), rate, label=name, physical_dimension="uV")
        for name, rate in (("Fp1", 100), ("O2", 200))
    ]
    edfio.Edf(signals).write(tmp_path / "mixed.edf")
    whole = read_recording(tmp_path / "mixed.edf", ["Fp1"])
    monkeypatch.setattr("neurolm.eeg.scratch.WHOLE_BYTES", 1000)
    monkeypatch.setattr("neurolm.eeg.containers.PIECE_BYTES", 5000)
    np.testing.assert_array_equal(read_recording(tmp_path / "mixed.edf", ["Fp1"]).signal, whole.signal)
