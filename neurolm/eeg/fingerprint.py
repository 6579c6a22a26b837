"""Signal fingerprints: the same EEG is found again under another name, rate, filter, reference, montage or format.

As in audio fingerprinting (Wang, ISMIR 2003; Haitsma and Kalker, ISMIR 2002), a recording becomes many small landmarks,
each a hash and a time. Two recordings share a signal where many of their hashes are equal and agree on one offset.

- Signals are the electrodes and the differences of neighbouring electrodes, which no change of reference alters.
- A landmark is a local peak of a signal between 2.5 and 9 Hz, a band that every usual filter and rate leaves alone. Its
  hash says on which side of zero the signal is at 30 times around the peak, seen from the peak's own side: scale,
  polarity and the grid of the samples do not matter.
- Of every 10 s the landmarks with the smallest hashes are kept. Two copies then keep the same ones, whatever other
  channels they have.

Nothing is keyed, so that stores of different groups can be compared: whoever has a signal can tell whether it is in a
store.
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from neurolm.eeg.recording import Recording
from neurolm.eeg.scratch import release

FINGERPRINT_VERSION = 1
"""Fingerprints of different versions cannot be compared."""
LANDMARKS_PER_S = 16
BLOCK_S = 60.0
"""A recording is worked on in blocks of this length, so that a night of EEG needs no more memory than a minute."""
PRUNED_S = 10.0
"""The smallest hashes are kept of every so many seconds."""

_BAND_HZ = (2.5, 9.0)
_RATE_HZ = 100.0
_PEAK_S = 0.25
"""A peak is the largest value within so much on either side."""
_LAGS_S = np.concatenate([np.arange(-15, 0), np.arange(1, 16)]) * 0.08
_EDGE_S = 0.35
"""How far the ends of a signal disturb the band-pass."""
_BITS = 1 << np.arange(len(_LAGS_S), dtype=np.int64)
_REACH_S = float(_LAGS_S.max()) + _EDGE_S
_FLAT_UV = 0.05

_SAME_PLACE = {"T3": "T7", "T4": "T8", "T5": "P7", "T6": "P8", "M1": "A1", "M2": "A2"}
_NEIGHBOURS = """
    FP1-F7 F7-T7 T7-P7 P7-O1 FP2-F8 F8-T8 T8-P8 P8-O2 FP1-F3 F3-C3 C3-P3 P3-O1 FP2-F4 F4-C4 C4-P4 P4-O2 FZ-CZ CZ-PZ
    FP1-FP2 F7-F8 F3-F4 T7-T8 C3-C4 P7-P8 P3-P4 O1-O2 F3-FZ FZ-F4 C3-CZ CZ-C4 P3-PZ PZ-P4
"""


@dataclass(frozen=True)
class Fingerprint:
    """The landmarks of a recording in the order of time."""

    hashes: NDArray[np.uint32]
    times_ms: NDArray[np.uint32]
    """From the recording's start, in ms."""

    def __len__(self) -> int:
        return len(self.hashes)

    def within(self, spans_s: Iterable[tuple[float, float]]) -> "Fingerprint":
        """The landmarks that lie in one of the spans (start, stop) in seconds."""
        inside = np.zeros(len(self), dtype=bool)
        for start_s, stop_s in spans_s:
            first, last = np.searchsorted(self.times_ms, [start_s * 1000, stop_s * 1000])
            inside[first:last] = True
        return Fingerprint(self.hashes[inside], self.times_ms[inside])


def fingerprint(recording: Recording) -> Fingerprint:
    """The landmarks of a recording, at most `LANDMARKS_PER_S`; none of what is flat or shorter than 3.1 s.

    Landmarks need 1.55 s of signal on either side; what is not finite counts as 0. Hashes that a recording repeats come
    from something periodic, a calibration signal say, and are left out.
    """
    rate, num_times = recording.sampling_rate_hz, recording.signal.shape[1]
    signals = _signals(recording.channels)
    parts = []
    for start_s in np.arange(0.0, num_times / rate, BLOCK_S):
        first = max(0, round((start_s - 2) * rate))
        last = min(num_times, round((start_s + BLOCK_S + 2) * rate))
        hashes, times_s = _landmarks(recording.signal[:, first:last], rate, signals)
        release(recording.signal)
        times_s = times_s + first / rate
        inside = (times_s >= start_s) & (times_s < start_s + BLOCK_S)
        parts.append(_smallest(hashes[inside], times_s[inside]))
    hashes, times_s = (np.concatenate(values) for values in zip(*parts, strict=True))
    _, first_places, counts = np.unique(hashes, return_index=True, return_counts=True)
    once = np.sort(first_places[counts == 1])
    return Fingerprint(hashes[once], np.round(times_s[once] * 1000).astype(np.uint32))


def _signals(channels: Sequence[str]) -> list[tuple[int, int, int | None]]:
    """Key, row and row to subtract of every electrode and of every pair of neighbours that is there."""
    rows = {"-".join(_SAME_PLACE.get(part, part) for part in name.split("-")): row for row, name in enumerate(channels)}
    pairs = [(pair, *pair.split("-")) for pair in _NEIGHBOURS.split() if pair not in rows]
    return [(_key(name), row, None) for name, row in rows.items()] + [
        (_key(pair), rows[one], rows[other]) for pair, one, other in pairs if one in rows and other in rows
    ]


def _key(name: str) -> int:
    return zlib.crc32(name.encode())


def _landmarks(
    signal: NDArray[np.floating], rate: float, signals: Sequence[tuple[int, int, int | None]]
) -> tuple[NDArray[np.uint32], NDArray[np.float64]]:
    """Hashes and times in seconds of all peaks, sorted by time and hash."""
    band, band_rate = _band_pass(signal, rate)
    values = np.stack([band[row] - (0 if other is None else band[other]) for _, row, other in signals])
    size = np.abs(values)
    rows, places = _peaks(size, round(_PEAK_S * band_rate), int(np.ceil(_REACH_S * band_rate)))
    left, top, right = (size[rows, places + step] for step in (-1, 0, 1))
    bend = left - 2 * top + right  # a parabola through the peak and its neighbours says where it really is
    peaks = places + np.where(bend < 0, 0.5 * (left - right) / np.where(bend < 0, bend, -1), 0)
    around = peaks[:, None] + _LAGS_S * band_rate
    before = around.astype(np.int64)
    share = (around - before).astype(np.float32)
    before += (rows * values.shape[1])[:, None]
    first, second = values.ravel()[before], values.ravel()[before + 1]
    seen = first + (second - first) * share
    is_same_side = (seen > 0) == (values[rows, places] > 0)[:, None]
    pattern = (is_same_side @ _BITS).astype(np.uint64)
    keys = np.array([key for key, _, _ in signals], dtype=np.uint64)[rows]
    hashes = (_mixed(pattern ^ _mixed(keys)) >> np.uint64(32)).astype(np.uint32)
    order = np.lexsort((hashes, peaks))
    return hashes[order], peaks[order] / band_rate


def _peaks(size: NDArray[np.float32], half_width: int, reach: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and places of the values that are largest within ``half_width`` and ``reach`` away from both ends."""
    num_times = size.shape[1]
    if num_times <= 2 * reach:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    largest, width = size, 1  # at each place, of the ``width`` values from there on
    while 2 * width <= 2 * half_width + 1:
        largest = np.maximum(largest[:, :-width], largest[:, width:])
        width *= 2
    rest = 2 * half_width + 1 - width
    largest = np.maximum(largest[:, : largest.shape[1] - rest], largest[:, rest:])
    middle = size[:, reach : num_times - reach]
    largest = largest[:, reach - half_width :][:, : middle.shape[1]]
    rows, places = np.nonzero((middle == largest) & (middle > _FLAT_UV))
    return rows, places + reach


def _band_pass(signal: NDArray[np.floating], rate: float) -> tuple[NDArray[np.float32], float]:
    """The signal between 2.5 and 9 Hz without a shift in time, at about 100 Hz, and its exact rate."""
    num_times = signal.shape[1]
    size = scipy.fft.next_fast_len(num_times + round(rate), real=True)
    new_size = round(size * _RATE_HZ / rate)
    frequencies = scipy.fft.rfftfreq(size, 1 / rate)
    low, high = _BAND_HZ
    gain = 1 / (1 + np.exp(-(frequencies - low) / 0.35)) / (1 + np.exp(np.minimum((frequencies - high) / 0.7, 500)))
    offset = np.nan_to_num(signal[:, :1].astype(np.float64))  # an offset of mV would cost float32 its last bits
    spectrum = scipy.fft.rfft(np.nan_to_num(signal - offset).astype(np.float32), n=size, axis=1)
    spectrum = spectrum[:, : new_size // 2 + 1] * gain[: new_size // 2 + 1].astype(np.float32)
    band = scipy.fft.irfft(spectrum, n=new_size, axis=1) * np.float32(new_size / size)
    new_rate = rate * new_size / size
    return band[:, : max(1, int(num_times / rate * new_rate))], new_rate


def _smallest(
    hashes: NDArray[np.uint32], times_s: NDArray[np.float64]
) -> tuple[NDArray[np.uint32], NDArray[np.float64]]:
    """The landmarks with the smallest hashes of every `PRUNED_S`."""
    spans = np.floor(times_s / PRUNED_S).astype(np.int64)
    order = np.lexsort((hashes, spans))
    firsts = np.searchsorted(spans[order], spans[order])
    kept = np.sort(order[np.arange(len(order)) - firsts < LANDMARKS_PER_S * PRUNED_S])
    return hashes[kept], times_s[kept]


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Well mixed bits (the finaliser of SplitMix64, Steele et al., OOPSLA 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
