"""One continuous recording in µV; every reader goes through MNE, and MNE's volts end here."""

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mne
import numpy as np
from numpy.typing import NDArray

from neurolm.config import UserError
from neurolm.eeg.channels import UnknownChannelError, canonical_name
from neurolm.eeg.scratch import ScratchArray, fits_memory, release

logger = logging.getLogger(__name__)

MICROVOLT_PER_VOLT = 1e6
AMPLITUDE_RANGE_UV = (0.1, 2000.0)
"""Where the typical amplitude (see `typical_amplitude_uv`) of any EEG lies; outside, the unit is wrong."""
PIECE_BYTES = 64 * 2**20
"""Signal bytes that are read at once of a recording too long for memory."""

_TRUNCATED = "Number of records from the header does not match the file size"
_MIXED_RATES = "Loading an EDF with mixed sampling frequencies"
_UNDERSTOOD = tuple(
    re.compile(pattern)
    for pattern in (
        "Channels contain different (high|low)pass filters",  # hardware filters in the header, which we do not use
        "(High|Low)pass cutoff frequency",
        "No coordinate information found",  # electrode positions come from the names
        "Not setting positions of",
        "Could not parse meas date",  # dates are not kept
        "Invalid (patient information|measurement date)",
    )
)


class RecordingError(UserError):
    """A recording that cannot be used; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class Annotation:
    """A marked span of a recording."""

    onset_s: float
    duration_s: float
    description: str


@dataclass(frozen=True)
class Recording:
    """One continuous file of one subject."""

    signal: NDArray[np.floating[Any]]
    """[channels times], µV; a day of many channels lies on disk (`scratch.ScratchArray`) and reads like any array."""
    sampling_rate_hz: float
    channels: tuple[str, ...]
    """Canonical names (`channels.CHANNELS`), one per row of the signal."""
    annotations: tuple[Annotation, ...] = ()
    left_out: tuple[str, ...] = ()
    """The file's own names of the channels that were not read."""

    @property
    def duration_s(self) -> float:
        """Length of the signal in seconds."""
        return self.signal.shape[1] / self.sampling_rate_hz


def read_recording(path: str | Path, picks: Sequence[str] | None = None) -> Recording:
    """Read a recording of any format that MNE knows.

    Args:
        path: a file; its extension says the format (EDF, BDF, BrainVision, EEGLAB, FIF, Nihon Kohden, ...).
        picks: channels in the order wanted, by the file's own or by canonical names; None takes every channel of the
            electrode vocabulary in the file's order and lists the others in `Recording.left_out`.

    Raises:
        RecordingError: missing, unreadable or truncated file, missing or doubled channel, unknown or wrong unit.
    """
    path = Path(path)
    if not path.exists():
        raise RecordingError(f"{path}: no such recording")
    raw = _open(path)
    names = _electrodes(path, raw) if picks is None else [_pick(path, raw, pick) for pick in picks]
    channels = tuple(_canonical(path, name) for name in names)
    _refuse_doubled(path, names, channels)
    _check_dimensions(path, raw, names)
    if raw.n_times == 0:
        raise RecordingError(f"{path}: the file holds no signal")
    signal = _signal(path, raw, names)
    _check_amplitude(path, signal, float(raw.info["sfreq"]))
    return Recording(
        signal=signal,
        sampling_rate_hz=float(raw.info["sfreq"]),
        channels=channels,
        annotations=tuple(
            Annotation(float(onset), float(duration), str(description))
            for onset, duration, description in zip(
                raw.annotations.onset, raw.annotations.duration, raw.annotations.description, strict=True
            )
        ),
        left_out=tuple(name for name in raw.ch_names if name not in names),
    )


def typical_amplitude_uv(signal: NDArray[np.floating[Any]], sampling_rate_hz: float) -> float | None:
    """Median over channels of the median standard deviation within one second, in µV; None if nothing varies.

    Offsets and slow drifts, which differ between amplifiers by orders of magnitude, do not enter.
    """
    block = max(2, min(round(sampling_rate_hz), signal.shape[1]))
    num_blocks = signal.shape[1] // block
    if num_blocks == 0:
        return None
    spreads = []
    for row in signal:
        spreads.append(np.median(row[: num_blocks * block].reshape(num_blocks, block).std(axis=1)))
        release(signal)
    spread = np.array(spreads)
    spread = spread[np.isfinite(spread) & (spread > 0)]
    return float(np.median(spread)) if len(spread) else None


def _open(path: Path) -> Any:
    with warnings.catch_warnings(record=True) as caught, _without_printed_warnings():
        warnings.simplefilter("always")
        try:
            raw = mne.io.read_raw(path, preload=False, verbose="WARNING")
        except MemoryError:
            raise
        except Exception as error:  # readers fail in as many ways as files can be broken
            raise RecordingError(f"{path}: MNE cannot read this file ({_first_line(error)})") from error
    for warning in caught:
        text = str(warning.message)
        if text.startswith(_TRUNCATED):
            _refuse_truncated(path)
        if not any(pattern.match(text.strip()) for pattern in _UNDERSTOOD):
            logger.warning("%s: %s", path, text)
    return raw


@contextlib.contextmanager
def _without_printed_warnings() -> Iterator[None]:
    """MNE also prints each warning, to standard output and without the file's name; `_open` logs them with it."""
    printed = logging.getLogger("mne")

    def is_no_warning(record: logging.LogRecord) -> bool:
        return record.levelno != logging.WARNING

    printed.addFilter(is_no_warning)
    try:
        yield
    finally:
        printed.removeFilter(is_no_warning)


def _signal(path: Path, raw: Any, names: list[str]) -> NDArray[np.float64]:
    """The channels in µV, read at once, or piece by piece onto the disk where they would not fit into memory."""
    if not fits_memory(len(names), raw.n_times, np.float64):
        with contextlib.suppress(_Inseparable):
            array = ScratchArray(len(names), raw.n_times, np.float64)
            step = max(1, PIECE_BYTES // (8 * len(names)))
            for start in range(0, raw.n_times, step):
                array.write(0, start, _read(path, raw, names, start, min(start + step, raw.n_times)))
            return array.array()
    return _read(path, raw, names, 0, raw.n_times)


class _Inseparable(Exception):
    """The pieces of a recording are not what they are in the whole."""


def _read(path: Path, raw: Any, names: list[str], start: int, stop: int) -> NDArray[np.float64]:
    with warnings.catch_warnings():
        # Channels at other rates than ours are resampled by MNE while reading; EEG channels share one rate.
        is_piece = stop - start < raw.n_times
        warnings.filterwarnings("error" if is_piece else "ignore", message=_MIXED_RATES)
        try:
            signal: NDArray[np.float64] = raw.get_data(picks=names, start=start, stop=stop, verbose="WARNING")
        except MemoryError:
            raise
        except Exception as error:  # as in _open
            if str(error).startswith(_MIXED_RATES):
                raise _Inseparable from error
            raise RecordingError(f"{path}: the signal cannot be read ({_first_line(error)})") from error
    signal *= MICROVOLT_PER_VOLT
    return signal


def _refuse_truncated(path: Path) -> None:
    """MNE shortens an EDF or BDF file that ends early; a cut copy is not the recording, so refuse it."""
    with path.open("rb") as file:
        header = file.read(256)
        num_signals = int(header[252:256])
        file.seek(256 + 216 * num_signals)
        values_per_record = sum(int(file.read(8)) for _ in range(num_signals))
    declared, header_bytes = int(header[236:244]), int(header[184:192])
    bytes_per_value = 3 if header[0] == 0xFF else 2
    found = (path.stat().st_size - header_bytes) / (bytes_per_value * values_per_record)
    if found < declared:  # -1 stands for a recording that was never closed: its length is the file's
        raise RecordingError(
            f"{path}: truncated: the header promises {declared} data records, the file holds {found:.1f}; copy it again"
        )


def _electrodes(path: Path, raw: Any) -> list[str]:
    names = []
    for name in raw.ch_names:
        try:
            canonical_name(name)
        except UnknownChannelError:
            continue
        names.append(name)
    if not names:
        raise RecordingError(
            f"{path}: no channel is in the electrode vocabulary; the file has {_listed(raw.ch_names)}; rename them"
        )
    return names


def _pick(path: Path, raw: Any, pick: str) -> str:
    """The file's own name of a wanted channel."""
    if pick in raw.ch_names:
        return pick
    try:
        wanted = canonical_name(pick)
    except UnknownChannelError as error:
        raise RecordingError(f"{path}: {error} (the file has {_listed(raw.ch_names)})") from None
    matches = []
    for name in raw.ch_names:
        try:
            if canonical_name(name) == wanted:
                matches.append(name)
        except UnknownChannelError:
            continue
    if not matches:
        raise RecordingError(f"{path}: channel {pick!r} is missing; the file has {_listed(raw.ch_names)}")
    if len(matches) > 1:
        raise RecordingError(f"{path}: channel {pick!r} could be {_listed(matches)}; give the file's own name")
    return str(matches[0])


def _canonical(path: Path, name: str) -> str:
    try:
        return canonical_name(name)
    except UnknownChannelError as error:
        raise RecordingError(f"{path}: {error}") from None


def _refuse_doubled(path: Path, names: Sequence[str], channels: Sequence[str]) -> None:
    for channel in set(channels):
        same = [name for name, canonical in zip(names, channels, strict=True) if canonical == channel]
        if len(same) > 1:
            raise RecordingError(f"{path}: {_listed(same)} are the same electrode {channel}; pick one of them")


def _check_dimensions(path: Path, raw: Any, names: Sequence[str]) -> None:
    """MNE takes an EDF channel without a known physical dimension for volts, silently; ask instead."""
    dimensions: dict[str, str] = raw._orig_units  # MNE offers no public view of what the file declared
    for name in names:
        if dimensions.get(name, "V") not in ("V", "mV", "µV", "nV", "uV"):
            raise RecordingError(
                f"{path}: channel {name!r} has no known physical dimension (expected uV, mV or V); "
                "correct the header before reading it"
            )


def _check_amplitude(path: Path, signal: NDArray[np.float64], sampling_rate_hz: float) -> None:
    amplitude = typical_amplitude_uv(signal, sampling_rate_hz)
    low, high = AMPLITUDE_RANGE_UV
    if amplitude is not None and not low <= amplitude <= high:
        raise RecordingError(
            f"{path}: typical amplitude {amplitude:.3g} µV is no EEG (expected {low:g} to {high:g} µV): "
            "the unit in the header is probably wrong; correct it before reading the file"
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(str(name)) for name in names)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
