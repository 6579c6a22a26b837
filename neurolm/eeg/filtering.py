"""MNE's default zero-phase FIR filters, value for value, with each filter designed once.

`mne.filter.filter_data` designs its filter and evaluates its response anew in every call, which for recordings of a
minute takes a fifth of all time, and transforms one block of a channel after another.
"""

import functools
import math

import mne
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from neurolm.eeg.resampling import reflected

Taps = NDArray[np.float64]

_BLOCKS_AT_ONCE_BYTES = 2**20
"""Blocks of a channel that are transformed together; more would not stay in the processor's cache."""


@functools.lru_cache(maxsize=64)
def band_pass(rate_hz: float, low_hz: float, high_hz: float | None) -> Taps:
    """The filter of `mne.io.Raw.filter`; without ``high_hz`` a high-pass."""
    taps: Taps = mne.filter.create_filter(None, rate_hz, low_hz, high_hz, verbose="WARNING")
    return taps


@functools.lru_cache(maxsize=64)
def notch(rate_hz: float, notch_hz: float) -> Taps:
    """The filter of `mne.io.Raw.notch_filter`: a 200th of the frequency wide, between transitions of 0.5 Hz."""
    half = notch_hz / 200 / 2 + 0.5
    taps: Taps = mne.filter.create_filter(
        None, rate_hz, [notch_hz + half], [notch_hz - half], l_trans_bandwidth=0.5, h_trans_bandwidth=0.5,
        verbose="WARNING",
    )  # fmt: skip
    return taps


def filtered(taps: Taps, signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """One channel, filtered without delay: overlap-add over a signal that is reflected at its ends."""
    edge = max(min(len(taps), len(signal)) - 1, 0)
    extended = reflected(signal, edge, len(signal) + 2 * edge)
    size = len(extended)
    block = _block_size(len(taps), size)
    new = block - len(taps) + 1  # time points of the signal in a block
    response = fft.rfft(taps, block)
    shift = (len(taps) - 1) // 2 + edge
    result = np.zeros(size)
    at_once = max(1, _BLOCKS_AT_ONCE_BYTES // (8 * block))
    for first in range(0, size, new * at_once):
        chosen = extended[first : first + new * at_once]
        blocks = np.zeros((-(-len(chosen) // new), block))
        for number, row in enumerate(blocks):
            part = chosen[number * new : (number + 1) * new]
            row[: len(part)] = part
        spectrum = fft.rfft(blocks, axis=1)
        spectrum *= response
        for number, product in enumerate(fft.irfft(spectrum, block, axis=1)):
            start = first + number * new - shift
            begin, end = max(0, start), min(start + block, size)
            result[begin:end] += product[begin - start : end - start]
    return result[: len(signal)]


def _block_size(num_taps: int, size: int) -> int:
    """MNE's choice: the power of two with the least multiplications, large ones made dearer."""
    smallest = 2 * num_taps - 1
    if size < smallest:
        return int(fft.next_fast_len(smallest, real=True))
    blocks = 2 ** np.arange(math.ceil(math.log2(smallest)), math.ceil(math.log2(size)) + 1)
    cost = np.ceil(size / (blocks - num_taps + 1)) * blocks * (np.log2(blocks) + 1) + 4e-5 * blocks * size
    return int(blocks[np.argmin(cost)])
