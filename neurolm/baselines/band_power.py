"""Log band power: the yardstick of EEG classification that needs neither a network nor a GPU.

Welch's spectrum of every channel in segments of two seconds, averaged within the bands of clinical EEG up to 45 Hz,
where muscle and mains begin; its logarithm, since power is nearer to lognormal than to normal.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.signal import welch

SAMPLING_RATE_HZ = 200
SEGMENT_TIMES = 400
"""Time points of a segment: two seconds, half a hertz between frequencies."""
BANDS_HZ = {"delta": (1, 4), "theta": (4, 8), "alpha": (8, 13), "beta": (13, 30), "gamma": (30, 45)}
"""The lower end belongs to a band."""
SMALLEST_POWER = 1e-6
"""µV²/Hz; a flat channel has no less."""


def log_band_power(signals: NDArray[np.float32]) -> NDArray[np.float64]:
    """``[windows, channels, bands]``, log10 of µV²/Hz, of signals ``[windows, channels, times]`` in µV at 200 Hz."""
    segment = min(SEGMENT_TIMES, signals.shape[-1])
    frequencies, density = welch(signals.astype(np.float64), fs=SAMPLING_RATE_HZ, nperseg=segment)
    means = [density[..., (frequencies >= low) & (frequencies < high)].mean(axis=-1) for low, high in BANDS_HZ.values()]
    return np.asarray(np.log10(np.maximum(np.stack(means, axis=-1), SMALLEST_POWER)))
