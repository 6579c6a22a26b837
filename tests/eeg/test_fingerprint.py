from collections.abc import Callable
from pathlib import Path

import mne
import numpy as np
import pytest
from numpy.typing import NDArray

from neurolm.eeg.fingerprint import BLOCK_S, LANDMARKS_PER_S, PRUNED_S, Fingerprint, fingerprint
from neurolm.eeg.preprocessing import PreprocessingConfig, preprocess
from neurolm.eeg.recording import Recording, read_recording

Change = Callable[[Recording], Recording]


def noise(seed: int, duration_s: float = 70, rate: float = 200, channels: tuple[str, ...] = ("FP1", "F7", "F3", "C3")):
    rng = np.random.default_rng(seed)
    signal = np.cumsum(rng.normal(0, 3, (len(channels), round(duration_s * rate))), axis=1)
    return Recording(signal - signal.mean(axis=1, keepdims=True), rate, channels)


def common(one: Fingerprint, other: Fingerprint) -> int:
    """Hashes that two fingerprints share, at whatever time."""
    return len(np.intersect1d(one.hashes, other.hashes))


def test_landmarks_are_sorted_limited_and_the_same_every_time() -> None:
    recording = noise(0)
    first, again = fingerprint(recording), fingerprint(recording)
    assert np.array_equal(first.hashes, again.hashes) and np.array_equal(first.times_ms, again.times_ms)
    assert (np.diff(first.times_ms.astype(int)) >= 0).all()
    per_span = np.bincount((first.times_ms / 1000 / PRUNED_S).astype(int))
    assert 0 < per_span.max() <= LANDMARKS_PER_S * PRUNED_S
    assert first.times_ms.max() / 1000 > BLOCK_S  # every block has its share
    assert len(np.unique(first.hashes)) == len(first)


def test_spans_select_by_time() -> None:
    whole = fingerprint(noise(0))
    part = whole.within([(10, 12), (11, 14), (30, 31)])
    times_s = part.times_ms / 1000
    assert 0 < len(part) < len(whole)
    assert (((times_s >= 10) & (times_s < 14)) | ((times_s >= 30) & (times_s < 31))).all()
    assert len(whole.within([(0, 1000)])) == len(whole)
    assert len(whole.within([])) == 0


@pytest.mark.parametrize(
    "signal",
    [
        np.zeros((4, 4000)),
        np.full((4, 4000), 7.5),
        np.random.default_rng(0).normal(0, 10, (4, 600)),  # 3 s: no peak has enough around it
        np.random.default_rng(0).normal(0, 10, (4, 1)),
        np.tile(50.0 * (np.arange(200) < 100), (4, 100)),  # a calibration signal, the same second after second
    ],
    ids=["nothing", "constant", "short", "one time point", "periodic"],
)
def test_what_says_nothing_has_no_landmarks(signal: NDArray[np.float64]) -> None:
    assert len(fingerprint(Recording(signal, 200.0, ("FP1", "F7", "F3", "C3")))) == 0


def test_a_gap_costs_only_what_is_near_it() -> None:
    whole = noise(3)
    gap = whole.signal.copy()
    gap[:, 4000:4400] = np.nan
    found = common(fingerprint(Recording(gap, 200.0, whole.channels)), fingerprint(whole))
    assert 0.75 * len(fingerprint(whole)) < found < len(fingerprint(whole))


def test_old_and_new_names_and_bipolar_channels_are_one_place() -> None:
    old = noise(1, channels=("T3", "T5", "C3", "CZ"))
    new = Recording(old.signal, 200.0, ("T7", "P7", "C3", "CZ"))
    assert common(fingerprint(old), fingerprint(new)) == len(fingerprint(old))
    bipolar = Recording(old.signal[:1] - old.signal[1:2], 200.0, ("T7-P7",))
    assert common(fingerprint(bipolar), fingerprint(new)) > 10


def test_different_signals_share_nothing() -> None:
    assert common(fingerprint(noise(1)), fingerprint(noise(2))) <= 1


def resampled(rate: float) -> Change:
    return lambda r: Recording(mne.filter.resample(r.signal, rate, r.sampling_rate_hz, verbose=False), rate, r.channels)


def filtered(low_hz: float, high_hz: float) -> Change:
    def change(r: Recording) -> Recording:
        signal = mne.filter.filter_data(r.signal, r.sampling_rate_hz, low_hz, high_hz, verbose=False)
        return Recording(signal, r.sampling_rate_hz, r.channels)

    return change


def requantised(r: Recording) -> Recording:
    step = 1.7 * np.abs(r.signal).max() / 2**15
    return Recording(np.round(r.signal / step) * step, r.sampling_rate_hz, r.channels)


def reversed_half(r: Recording) -> Recording:
    """Every other channel, in the opposite order."""
    return Recording(r.signal[::-2], r.sampling_rate_hz, r.channels[::-2])


CHANGES: dict[str, tuple[Change, float]] = {
    "128 Hz": (resampled(128), 0.7),
    "250 Hz": (resampled(250), 0.7),
    "1-40 Hz": (filtered(1, 40), 0.7),
    "0.5-70 Hz": (filtered(0.5, 70), 0.7),
    "16 bits": (requantised, 0.7),
    "scale and polarity": (lambda r: Recording(-0.37 * r.signal, r.sampling_rate_hz, r.channels), 0.7),
    "half of the channels": (reversed_half, 0.15),
    "average reference": (lambda r: Recording(r.signal - r.signal.mean(0), r.sampling_rate_hz, r.channels), 0.3),
}
"""What is done to a copy, and which share of its landmarks the original must have."""


@pytest.fixture(scope="module")
def rest(test_data: Path) -> Recording:
    return read_recording(test_data / "eegmat" / "Subject03_1.edf")


def prepared(recording: Recording) -> Fingerprint:
    return fingerprint(preprocess(recording, PreprocessingConfig(), 50))


@pytest.mark.parametrize("name", CHANGES)
def test_a_real_recording_is_found_again(rest: Recording, name: str) -> None:
    change, share = CHANGES[name]
    copy = prepared(change(rest))
    assert common(copy, prepared(rest)) > share * len(copy) > 50


def test_a_crop_is_found_at_its_place(rest: Recording) -> None:
    start = round(23.4567 * rest.sampling_rate_hz)
    crop = Recording(rest.signal[:, start : start + 20000], rest.sampling_rate_hz, rest.channels)
    whole, part = prepared(rest), prepared(crop)
    hashes, at, place = np.intersect1d(whole.hashes, part.hashes, return_indices=True)
    assert len(hashes) > 0.6 * len(part)
    offsets_s = (whole.times_ms[at].astype(float) - part.times_ms[place]) / 1000
    # MNE's resampler rounds its padding, which moves either signal by up to half a sample.
    assert offsets_s == pytest.approx(start / rest.sampling_rate_hz, abs=0.03)
    assert np.median(offsets_s) == pytest.approx(start / rest.sampling_rate_hz, abs=0.01)
