import dataclasses
from pathlib import Path

import mne
import numpy as np
import pytest

from neurolm.eeg.preprocessing import PreprocessingConfig, preprocess
from neurolm.eeg.recording import Recording, RecordingError, read_recording

CONFIG = PreprocessingConfig()


def tones(rate_hz: float, duration_s: float, frequencies_hz: list[float], amplitude_uv: float = 10) -> Recording:
    times = np.arange(round(rate_hz * duration_s)) / rate_hz
    signal = np.stack([amplitude_uv * np.sin(2 * np.pi * frequency * times) for frequency in frequencies_hz])
    return Recording(signal, rate_hz, ("CZ", "PZ", "OZ", "FZ", "C3")[: len(frequencies_hz)])


def middle_rms(recording: Recording) -> np.ndarray:
    times = recording.signal.shape[1]
    return np.sqrt((recording.signal[:, times // 4 : 3 * times // 4] ** 2).mean(axis=1))


@pytest.mark.parametrize("rate_hz", [200, 256, 500])
def test_band_is_kept_mains_and_the_rest_removed(rate_hz: float) -> None:
    recording = tones(rate_hz, 80, [10, 50, 40, 97, 0.005])
    result = preprocess(recording, CONFIG, mains_hz=50)
    assert result.signal.dtype == np.float32
    assert result.signal.shape == (5, 80 * 200)
    alpha, mains, gamma, high, drift = middle_rms(result) / (10 / np.sqrt(2))
    assert alpha == pytest.approx(1, abs=0.01)
    assert gamma == pytest.approx(1, abs=0.01)
    assert mains < 0.05
    assert high < 0.02
    assert drift < 0.15


def test_mains_frequency_is_the_data_sets() -> None:
    recording = tones(500, 40, [50, 60])
    fifty, sixty = middle_rms(preprocess(recording, CONFIG, mains_hz=60))
    assert fifty > 6.9
    assert sixty < 0.4
    assert (middle_rms(preprocess(recording, CONFIG, mains_hz=None)) > 6.9).all()


def test_same_numbers_as_mne_in_the_papers_order(test_data: Path) -> None:
    path = test_data / "eegmat" / "Subject07_2.edf"
    raw = mne.io.read_raw_edf(path, preload=True, verbose="ERROR")
    raw.pick(["EEG Fp1", "EEG O2"]).filter(0.1, 75.0, verbose="ERROR").notch_filter(50.0, verbose="ERROR")
    expected = raw.resample(200, verbose="ERROR").get_data() * 1e6
    result = preprocess(read_recording(path, picks=["EEG Fp1", "EEG O2"]), CONFIG, mains_hz=50)
    np.testing.assert_allclose(result.signal, expected, atol=1e-4)


def test_every_value_is_that_of_mnes_own_methods(test_data: Path) -> None:
    recording = read_recording(test_data / "eegmat" / "Subject07_2.edf")
    raw = mne.io.RawArray(
        recording.signal.copy(), mne.create_info(len(recording.channels), 500.0, "eeg"), verbose="ERROR"
    )
    raw.filter(0.1, 75.0, verbose="ERROR").notch_filter(50.0, verbose="ERROR").resample(200, verbose="ERROR")
    np.testing.assert_array_equal(preprocess(recording, CONFIG, mains_hz=50).signal, raw.get_data().astype(np.float32))


@pytest.mark.parametrize("rate_hz", [100, 128])
def test_slow_recording_has_no_low_pass_and_comes_out_at_200_hz(rate_hz: float) -> None:
    result = preprocess(tones(rate_hz, 20, [10]), CONFIG, mains_hz=60)
    assert result.signal.shape == (1, 4000)
    assert middle_rms(result) == pytest.approx(10 / np.sqrt(2), rel=0.01)


def test_recording_shorter_than_the_filter_is_filtered_without_noise() -> None:
    assert preprocess(tones(500, 3, [10]), CONFIG, mains_hz=50).signal.shape == (1, 600)


def test_a_result_on_disk_has_the_same_values(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    recording = Recording(rng.normal(0, 20, (5, 10_007)), 250, ("CZ", "PZ", "OZ", "FZ", "C3"))
    whole = preprocess(recording, CONFIG, mains_hz=50).signal
    monkeypatch.setattr("neurolm.eeg.scratch.WHOLE_BYTES", 1000)
    np.testing.assert_array_equal(preprocess(recording, CONFIG, mains_hz=50).signal, whole)


def test_input_is_not_changed() -> None:
    recording = tones(500, 5, [10])
    before = recording.signal.copy()
    preprocess(recording, CONFIG, mains_hz=50)
    np.testing.assert_array_equal(recording.signal, before)


def test_hopelessly_slow_recording() -> None:
    with pytest.raises(RecordingError, match="too low"):
        preprocess(Recording(np.ones((1, 100)), 0.1, ("CZ",)), CONFIG, mains_hz=None)


def test_what_was_preprocessed_before_is_left_as_it_is() -> None:
    signal = np.random.default_rng(0).normal(0, 10, (2, 400))
    before = Recording(signal, 200.0, ("C3", "C4"), is_preprocessed=True)
    after = preprocess(before, PreprocessingConfig(), 50)
    np.testing.assert_array_equal(after.signal, signal.astype(np.float32))
    with pytest.raises(RecordingError, match="preprocessed before to 250 Hz, expected 200 Hz"):
        preprocess(dataclasses.replace(before, sampling_rate_hz=250.0), PreprocessingConfig(), 50)
