"""Windows: fixed-length pieces of a preprocessed recording, the examples that are stored and trained on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurolm.eeg.channels import channel_index
from neurolm.eeg.recording import Recording

FLAT_UV = 0.01
"""A channel that moves less than this in a whole window is flat."""


@dataclass(frozen=True)
class Window:
    """One training example."""

    signal: NDArray[np.float32]
    """[channels times], µV at 200 Hz."""
    channel_indices: tuple[int, ...]
    """Row of the electrode vocabulary of every channel."""
    start_s: float
    """Where the window begins in its recording."""
    label: str | None
    """Name of the class, None if unlabelled."""


def cut(
    recording: Recording,
    *,
    duration_s: float,
    stride_s: float,
    start_s: float = 0.0,
    stop_s: float | None = None,
    label: str | None = None,
) -> list[Window]:
    """All windows of ``duration_s`` every ``stride_s`` that lie wholly between ``start_s`` and ``stop_s``.

    Windows are views of a float32 recording: those of a day cost no memory until they are read. A rest shorter than a
    window at the end is not used. ``stop_s`` None is the recording's end. A window across one of the recording's breaks
    is NaN, and so `unusable`.
    """
    rate = recording.sampling_rate_hz
    num_times, stride = round(duration_s * rate), round(stride_s * rate)
    if num_times < 1 or stride < 1:
        raise ValueError(f"duration {duration_s:g} s and stride {stride_s:g} s must be at least one time point")
    first = round(start_s * rate)
    last = recording.signal.shape[1] if stop_s is None else min(round(stop_s * rate), recording.signal.shape[1])
    if first < 0:
        raise ValueError(f"a window cannot begin at {start_s:g} s")
    indices = tuple(channel_index(name) for name in recording.channels)
    breaks = [round(break_s * rate) for break_s in recording.breaks_s]

    def signal(begin: int) -> NDArray[np.float32]:
        if any(begin < place < begin + num_times for place in breaks):
            return np.full((len(indices), num_times), np.nan, np.float32)
        return np.asarray(recording.signal[:, begin : begin + num_times], dtype=np.float32)

    return [
        Window(
            signal=signal(begin),
            channel_indices=indices,
            start_s=begin / rate,
            label=label,
        )
        for begin in range(first, last - num_times + 1, stride)
    ]


def unusable(window: Window) -> str | None:
    """Why a window cannot be trained on, or None; noisy or partly flat windows can be."""
    if not np.isfinite(window.signal).all():
        return "not finite"
    if float(np.ptp(window.signal, axis=1).max()) < FLAT_UV:
        return "constant"
    return None
