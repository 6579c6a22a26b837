"""How large a signal typically is: what tells a wrong unit from an EEG."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurolm.eeg.scratch import release

AMPLITUDE_RANGE_UV = (0.1, 2000.0)
"""Where the typical amplitude (see `typical_amplitude_uv`) of any EEG lies; outside, the unit is wrong."""

_ROUNDING = 1e-9


def typical_amplitude_uv(signal: NDArray[np.floating[Any]], sampling_rate_hz: float) -> float | None:
    """Median over channels of the median standard deviation within one second, in µV; None if nothing varies.

    Offsets and slow drifts, which differ between amplifiers by orders of magnitude, do not enter, nor do seconds that
    are constant or not finite.
    """
    block = max(2, min(round(sampling_rate_hz), signal.shape[1]))
    num_blocks = signal.shape[1] // block
    if num_blocks == 0:
        return None
    typical = []
    for row in signal:
        blocks = row[: num_blocks * block].reshape(num_blocks, block)
        spread = blocks.std(axis=1)
        largest = np.maximum(blocks.max(axis=1), -blocks.min(axis=1))
        if (varies := np.isfinite(spread) & (spread > _ROUNDING * largest)).any():
            typical.append(np.median(spread[varies]))
        release(signal)
    return float(np.median(typical)) if typical else None


def is_plausible(amplitude_uv: float | None) -> bool:
    """Whether an EEG can have this typical amplitude."""
    low, high = AMPLITUDE_RANGE_UV
    return amplitude_uv is not None and low <= amplitude_uv <= high
