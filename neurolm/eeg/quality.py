"""Signal quality: what is wrong with every channel of every window, as flags stored beside it.

A recording is judged as it was recorded, because filters hide what is looked for: a notch takes the line noise away,
a band-pass rounds off clipped peaks and fills gaps with ringing. Only the amplitude is judged on the filtered window,
since that is what a model sees. Flags are for people and for `QualityConfig.reject`; by default they reject nothing.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, get_args

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from pydantic import Field

from neurolm.config import config
from neurolm.eeg.recording import Recording
from neurolm.eeg.scratch import release
from neurolm.eeg.windows import Window

FlagName = Literal["flat", "clipped", "line_noise", "too_large", "too_small", "gap"]
FLAGS: dict[FlagName, int] = {name: 1 << bit for bit, name in enumerate(get_args(FlagName))}
"""Flag to its bit in the stored ``quality`` of a channel; 0 is a channel without objection."""

CLIPPED_RUN = 3
"""Equal values in a row that make a peak clipped; a natural peak is seldom more than two of them wide."""
LINE_WIDTH_HZ = 1.0
"""Power within this distance of the mains frequency and its harmonics is line noise."""
LOWEST_HZ = 1.0
"""Power below is left out of the share of line noise: drifts would hide any of it."""

Share = Annotated[float, Field(gt=0, le=1)]


@config
class QualityConfig:
    """From where on a channel of a window is flagged, and which flags drop a window."""

    flat_uv: Annotated[float, Field(ge=0)] = 0.5
    """flat: as recorded, the channel spans less than this many µV in the window (an amplifier's noise spans more)."""
    clipped_share: Share = 0.01
    """clipped: at least this share of the window lies in runs of 3 or more values at the recording's extremes (at
    a full scale that was reached; 1 % is 40 ms of 4 s)."""
    line_noise_share: Share = 0.5
    """line_noise: of the power above 1 Hz as recorded, the share within 1 Hz of the mains frequency and its harmonics
    is at least this (at 0.5 the mains is stronger than the rest: usually an electrode with poor contact)."""
    large_uv: Annotated[float, Field(gt=0)] = 800.0
    """too_large: the filtered window spans more than this many µV (blinks span up to about 400, slow waves of deep
    sleep 500; the rest is movement)."""
    small_uv: Annotated[float, Field(ge=0)] = 3.0
    """too_small: the filtered window spans less than this many µV (as an amplifier's noise of 0.5 µV rms does)."""
    gap_s: Annotated[float, Field(gt=0)] = 0.1
    """gap: a value that is not finite, or held this many seconds between extremes (EEGMMIDB, stored in whole µV, holds
    none longer than 0.07 s by chance)."""
    reject: tuple[FlagName, ...] = ()
    """Flags that make a channel bad; empty: windows are flagged, and none is dropped for it."""
    reject_share: Share = 0.5
    """A window is dropped if at least this share of its channels is bad."""


def judge(
    recording: Recording,
    windows: Sequence[Window],
    config: QualityConfig,
    *,
    window_rate_hz: float,
    mains_hz: float | None,
) -> Iterator[NDArray[np.uint8]]:
    """The flags of every window's channels, [channels], in the order of the windows.

    Args:
        recording: as it was read, before any filter.
        windows: cut from the same recording after filtering, with its channels in its order.
        config: thresholds.
        window_rate_hz: sampling rate of the windows.
        mains_hz: frequency of the mains where it was recorded. None, or one above the Nyquist frequency, leaves line
            noise unjudged.
    """
    rate_hz = recording.sampling_rate_hz
    low, high = _extremes(recording.signal)
    gap_run = max(round(config.gap_s * rate_hz), CLIPPED_RUN)
    for window in windows:
        begin = round(window.start_s * rate_hz)
        span = slice(begin, begin + round(window.signal.shape[1] * rate_hz / window_rate_hz))
        raw = recording.signal[:, span]
        is_finite = np.isfinite(raw)
        if not is_finite.all():
            raw = np.where(is_finite, raw, 0.0)
        is_flat = np.ptp(raw, axis=1) < config.flat_uv
        clipped_share, is_held = _runs(raw, low, high, gap_run)
        amplitude_uv = np.ptp(window.signal, axis=1)
        found: dict[FlagName, NDArray[np.bool_]] = {
            "flat": is_flat,
            "clipped": ~is_flat & (clipped_share >= config.clipped_share),
            "line_noise": ~is_flat & (_line_noise_share(raw, rate_hz, mains_hz) >= config.line_noise_share),
            "too_large": amplitude_uv > config.large_uv,
            "too_small": amplitude_uv < config.small_uv,
            "gap": ~is_finite.all(axis=1) | (~is_flat & is_held),
        }
        yield np.sum([is_found * FLAGS[name] for name, is_found in found.items()], axis=0, dtype=np.uint8)


def rejection(flags: NDArray[np.uint8], config: QualityConfig) -> str | None:
    """Why a window with these flags is dropped, or None; only `QualityConfig.reject` makes flags a reason."""
    bad = flags & sum(FLAGS[name] for name in config.reject)
    if not config.reject or np.count_nonzero(bad) < config.reject_share * len(flags):
        return None
    return f"too many bad channels ({', '.join(names_of(int(np.bitwise_or.reduce(bad))))})"


def names_of(bits: int) -> list[FlagName]:
    """The flags that a stored number stands for."""
    return [name for name, bit in FLAGS.items() if bits & bit]


def _extremes(signal: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The lowest and the highest finite value of every channel; 0 where there is none."""
    found = np.zeros((2, len(signal)))
    for place, row in enumerate(signal):
        finite = row[np.isfinite(row)]
        if len(finite):
            found[:, place] = finite.min(), finite.max()
        release(signal)
    return found[0], found[1]


def _runs(raw: NDArray[Any], low: NDArray[Any], high: NDArray[Any], gap_run: int) -> tuple[Any, Any]:
    """Of every channel: the share of times clipped, and whether another value is held for ``gap_run`` time points."""
    same = raw[:, 1:] == raw[:, :-1]
    triple = same[:, 1:] & same[:, :-1]
    begins = np.flatnonzero(triple)
    if not len(begins):
        return np.zeros(len(raw)), np.zeros(len(raw), dtype=bool)
    rows, columns = np.divmod(begins, triple.shape[1])  # where three equal values begin
    first = np.flatnonzero((np.diff(columns, prepend=-2) != 1) | (np.diff(rows, prepend=-1) != 0))
    lengths = np.diff(first, append=len(rows)) + CLIPPED_RUN - 1
    rows, columns = rows[first], columns[first]
    values = raw[rows, columns]
    is_extreme = (values == low[rows]) | (values == high[rows])
    clipped = np.bincount(rows, lengths * is_extreme, minlength=len(raw))
    num_gaps = np.bincount(rows, (lengths >= gap_run) & ~is_extreme, minlength=len(raw))
    return clipped / raw.shape[1], num_gaps > 0


def _line_noise_share(raw: NDArray[Any], rate_hz: float, mains_hz: float | None) -> Any:
    """Of every channel: power at the mains frequency and its harmonics over all power above `LOWEST_HZ`."""
    taper, is_counted, is_line = _bins(raw.shape[1], rate_hz, mains_hz)
    if not is_line.any():
        return np.zeros(len(raw))
    spectrum = scipy.fft.rfft(np.multiply(raw, taper, dtype=np.float32), axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    total = power @ is_counted
    return np.divide(power @ is_line, total, out=np.zeros_like(total), where=total > 0)


@functools.lru_cache(maxsize=16)
def _bins(num_times: int, rate_hz: float, mains_hz: float | None) -> tuple[Any, Any, Any]:
    """A Hann taper, and as 0 and 1 which frequencies count at all and which of them are line noise."""
    taper = np.hanning(num_times + 1)[:-1].astype(np.float32)  # periodic: an offset stays in the two lowest bins
    frequency = scipy.fft.rfftfreq(num_times, 1 / rate_hz)
    tone_hz = 2 * rate_hz / num_times  # half the width of a tone that is seen through the taper
    width_hz = max(LINE_WIDTH_HZ, tone_hz)
    is_line = np.zeros(len(frequency), dtype=np.float32)
    if mains_hz is not None:
        for harmonic in np.arange(mains_hz, rate_hz / 2 - width_hz, mains_hz):
            is_line[np.abs(frequency - harmonic) <= width_hz] = 1
    return taper, (frequency >= max(LOWEST_HZ, tone_hz)).astype(np.float32), is_line
