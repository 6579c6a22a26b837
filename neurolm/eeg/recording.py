"""One continuous recording in µV; every reader goes through MNE, and MNE's volts end here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mne
import numpy as np
from numpy.typing import NDArray

from neurolm.eeg.amplitude import AMPLITUDE_RANGE_UV, is_plausible, typical_amplitude_uv
from neurolm.eeg.arrays import ArrayFormat, is_array_file, open_array
from neurolm.eeg.channels import SelectionError, UnknownChannelError, known_name, select_channels
from neurolm.eeg.containers import RecordingError as RecordingError
from neurolm.eeg.containers import Records, discontinuous_records, open_raw, read_signal
from neurolm.eeg.gaps import BAD, BREAK
from neurolm.eeg.scratch import release

MICROVOLT_PER_VOLT = 1e6
RATE_RANGE_HZ = (30.0, 100_000.0)
"""Where the sampling rate of any EEG lies; outside, the header is wrong."""

_VOLTAGES = ("V", "mV", "µV", "nV", "uV")


@dataclass(frozen=True)
class Annotation:
    """A marked span of a recording."""

    onset_s: float
    duration_s: float
    description: str


@dataclass(frozen=True)
class Recording:
    """One file of one subject."""

    signal: NDArray[np.floating[Any]]
    """[channels times], µV; NaN where there is a gap or a span that was marked as bad. A day of many channels lies on
    disk (`scratch.ScratchArray`) and reads like any array."""
    sampling_rate_hz: float
    channels: tuple[str, ...]
    """Canonical names (`channels.CHANNELS`), one per row of the signal."""
    annotations: tuple[Annotation, ...] = ()
    left_out: tuple[str, ...] = ()
    """The file's own names of the channels that were not read."""
    breaks_s: tuple[float, ...] = ()
    """Where two pieces of signal were joined although time passed between them; no window crosses one."""
    is_preprocessed: bool = False
    """Filtered and resampled by somebody else before; `preprocess` leaves it as it is."""

    @property
    def duration_s(self) -> float:
        """Length of the signal in seconds."""
        return self.signal.shape[1] / self.sampling_rate_hz


def read_recording(
    path: str | Path,
    picks: Sequence[str] | Mapping[str, str] | None = None,
    *,
    drop: Sequence[str] = ("*",),
    rename: Sequence[str] | None = None,
    scale: float | None = None,
    triggers: str | None = None,
    arrays: ArrayFormat | None = None,
    reader_options: Mapping[str, Any] | None = None,
) -> Recording:
    """Read a recording of any format that MNE knows, or an array file.

    Args:
        path: a file; its extension says the format (EDF, BDF, GDF, BrainVision, EEGLAB, FIF, CNT, Nihon Kohden, ...).
        picks: channels in the order wanted, by the file's own or by canonical names, or as the file's own names and
            what they are; None takes every channel of the electrode vocabulary in the file's order.
        drop: names and patterns of channels that may be left out (see `channels.select_channels`); by default any.
            They are listed in `Recording.left_out`.
        rename: names for all channels of the file in its order, from a sidecar. They may tell what the file does not
            say, and may not contradict it.
        scale: multiplies the signal of a file whose header has a wrong unit, or none.
        triggers: trigger channel whose codes are read as annotations, in place of the file's own.
        arrays: rate, unit and names for array files.
        reader_options: what MNE's reader of this format must be told, such as ``data_format="int32"`` for a CNT file.

    Raises:
        RecordingError: missing, unreadable or truncated file, missing, unknown or doubled channel, unknown or wrong
            unit, channels of several rates.
    """
    path = Path(path)
    raw = open_array(path, arrays) if is_array_file(path) else open_raw(path, reader_options or {})
    own = list(raw.ch_names)
    names = own if rename is None else _renamed(path, own, list(rename))
    try:
        selection = select_channels(names, picks, drop)
    except (SelectionError, UnknownChannelError) as error:
        has = "" if "the file has" in str(error) else f" (the file has {', '.join(map(repr, names))})"
        raise RecordingError(f"{path}: {error}{has}") from None
    read = [own[names.index(name)] for name in selection.names]
    if scale is None:
        _check_dimensions(path, raw, read)
    signal, sampling_rate_hz = read_signal(path, raw, read, MICROVOLT_PER_VOLT, scale)
    _check_rate(path, sampling_rate_hz)
    recording = _mark_gaps(
        Recording(
            signal=signal,
            sampling_rate_hz=sampling_rate_hz,
            channels=selection.channels,
            annotations=_annotations(raw, read) if triggers is None else _triggers(path, raw, triggers),
            left_out=selection.left_out,
        ),
        discontinuous_records(path),
    )
    if not any(np.isfinite(row).any() for row in recording.signal):
        raise RecordingError(f"{path}: the file holds no signal")
    _check_amplitude(path, recording)
    return recording


def _renamed(path: Path, own: list[str], names: list[str]) -> list[str]:
    if set(names) <= set(own):
        return own  # the same names in another order, or only some of them
    if len(names) != len(own):
        raise RecordingError(f"{path}: has {len(own)} channels, but its sidecar names {len(names)}")
    for before, after in zip(own, names, strict=True):
        known = {known_name(before), known_name(after)} - {None}
        if len(known) > 1:
            raise RecordingError(f"{path}: channel {before!r} is called {after!r} by its sidecar; mend one of them")
    return names


def _annotations(raw: Any, read: Sequence[str]) -> tuple[Annotation, ...]:
    """Those of the whole file and of the channels read; MNE counts their onsets from the amplifier's start."""
    marks = raw.annotations
    return tuple(
        Annotation(float(onset) - float(raw.first_time), float(duration), str(description))
        for onset, duration, description, channels in zip(
            marks.onset, marks.duration, marks.description, marks.ch_names, strict=True
        )
        if not channels or set(channels) & set(read)
    )


def _triggers(path: Path, raw: Any, channel: str) -> tuple[Annotation, ...]:
    if channel not in raw.ch_names:
        raise RecordingError(f"{path}: trigger channel {channel!r} is missing; the file has {raw.ch_names}")
    events = mne.find_events(raw, stim_channel=channel, shortest_event=1, verbose="WARNING")
    rate_hz = float(raw.info["sfreq"])
    return tuple(Annotation((time - raw.first_samp) / rate_hz, 0.0, str(code)) for time, _, code in events.tolist())


def _mark_gaps(recording: Recording, records: Records | None) -> Recording:
    """NaN where the signal is unusable, and the times of all breaks."""
    signal, rate_hz = recording.signal, recording.sampling_rate_hz
    for row in signal:
        if not (is_finite := np.isfinite(row)).all():
            row[~is_finite] = np.nan
        release(signal)
    annotations, breaks_s = recording.annotations, set[float]()
    if records is not None and len(records.breaks):
        breaks_s |= set((records.breaks * records.duration_s).tolist())
        annotations = tuple(
            Annotation(_without_gaps(onset_s, records), duration_s, text) for onset_s, duration_s, text in records.marks
        )
    for mark in annotations:
        if BAD.match(mark.description) and mark.duration_s > 0:
            end_s = mark.onset_s + mark.duration_s
            signal[:, max(0, int(mark.onset_s * rate_hz)) : max(0, int(np.ceil(end_s * rate_hz)))] = np.nan
        elif BREAK.match(mark.description):
            breaks_s.add(mark.onset_s)
    inside = sorted(time for time in breaks_s if 0 < round(time * rate_hz) < signal.shape[1])
    return replace(recording, signal=signal, annotations=annotations, breaks_s=tuple(inside))


def _without_gaps(time_s: float, records: Records) -> float:
    """A time of the clock as a time of the signal, which has no gaps; one in a gap is where the signal goes on."""
    record = max(0, int(np.searchsorted(records.onsets_s, time_s, side="right")) - 1)
    return float(record * records.duration_s + min(time_s - records.onsets_s[record], records.duration_s))


def _check_dimensions(path: Path, raw: Any, names: Sequence[str]) -> None:
    """MNE takes an EDF channel without a known physical dimension for volts, silently; ask instead."""
    dimensions: dict[str, str] = raw._orig_units or {}  # MNE offers no public view of what the file declared
    for name in names:
        if dimensions.get(name, "V") not in _VOLTAGES:
            raise RecordingError(
                f"{path}: channel {name!r} has no known physical dimension (expected uV, mV or V); "
                "correct the header before reading it, or declare the `scale` of the signal"
            )


def _check_rate(path: Path, sampling_rate_hz: float) -> None:
    low, high = RATE_RANGE_HZ
    if not low <= sampling_rate_hz <= high:
        raise RecordingError(
            f"{path}: a sampling rate of {sampling_rate_hz:g} Hz is no EEG's (expected {low:g} to {high:g} Hz); "
            "correct the header before reading it"
        )


def _check_amplitude(path: Path, recording: Recording) -> None:
    amplitude = typical_amplitude_uv(recording.signal, recording.sampling_rate_hz)
    low, high = AMPLITUDE_RANGE_UV
    if amplitude is None:
        raise RecordingError(f"{path}: every channel is constant within every second: nothing was recorded")
    if not is_plausible(amplitude):
        raise RecordingError(
            f"{path}: typical amplitude {amplitude:.3g} µV is no EEG (expected {low:g} to {high:g} µV): "
            "the unit in the header is probably wrong; correct it before reading the file, or declare the `scale` of "
            "the signal"
        )
