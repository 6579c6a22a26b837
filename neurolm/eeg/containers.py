"""Opening a recording's file with MNE, and what single formats keep to themselves: cut ends, gaps, mixed rates."""

import contextlib
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mne
import numpy as np

from neurolm.config import UserError
from neurolm.eeg.amplitude import is_plausible, typical_amplitude_uv
from neurolm.eeg.privacy import foreign_words, spoken_name
from neurolm.eeg.scratch import ScratchArray, fits_memory

logger = logging.getLogger(__name__)

PIECE_BYTES = 64 * 2**20
"""Signal bytes that are read at once of a recording too long for memory."""

_TRUNCATED = "Number of records from the header does not match the file size"
_BEHIND_THE_END = ("Omitted", "Limited")
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
_NEUROSCAN = b"Version 3"
_ANNOTATION_LIST = re.compile(rb"([+-]\d+(?:\.\d*)?)(?:\x15([\d.]*))?\x14((?:[^\x00\x14]*\x14)*)\x00")
_ROUNDING_S = 1e-3


class RecordingError(UserError):
    """A recording that cannot be used; the message names the file and what is wrong with it."""


def open_raw(path: Path, options: Mapping[str, Any]) -> Any:
    """The file as MNE's Raw, its signal not read yet; ``options`` are for MNE's reader.

    Raises RecordingError: missing, unreadable or truncated.
    """
    if not path.exists():
        raise RecordingError(f"{path}: no such recording")
    if path.suffix == ".eeg" and path.with_suffix(".vhdr").exists():
        raise RecordingError(f"{path}: the data file of a BrainVision recording; give its .vhdr file")
    if not options and path.suffix.lower() == ".cnt" and _begins_with(path, _NEUROSCAN):
        return _open_neuroscan(path)
    return _open(path, lambda: mne.io.read_raw(path, preload=False, verbose="WARNING", **options))


def read_signal(path: Path, raw: Any, names: Sequence[str], *factors: float | None) -> tuple[np.ndarray, float]:
    """[channels times] in MNE's unit (V for what MNE knows as voltage) and the rate in Hz at which it was recorded.

    The signal is multiplied by one factor after the other. What would not fit into memory is read piece by piece onto
    the disk (`scratch.ScratchArray`).

    MNE brings the channels of one file to its highest rate. Where all wanted channels have one lower rate the file is
    opened anew for them alone, so that they stay as recorded.

    Raises:
        RecordingError: the wanted channels have several rates, or the signal cannot be read.
    """
    rate_hz = float(raw.info["sfreq"])
    native_hz = {name: rate for name, rate in _native_rates(raw).items() if name in names}
    if len(set(native_hz.values())) > 1:
        slow = min(native_hz.values())
        few = ", ".join(f"{name!r}: {rate:g} Hz" for name, rate in native_hz.items() if rate == slow)
        raise RecordingError(
            f"{path}: the channels have several sampling rates (most {max(native_hz.values()):g} Hz, {few}); "
            "pick channels of one rate"
        )
    if native_hz and not np.isclose(rate := next(iter(native_hz.values())), rate_hz):
        reader = {".edf": mne.io.read_raw_edf, ".bdf": mne.io.read_raw_bdf, ".gdf": mne.io.read_raw_gdf}
        opener = reader[path.suffix.lower()]
        raw, rate_hz = _open(path, lambda: opener(path, include=list(names), verbose="WARNING")), rate
    array = ScratchArray(len(names), raw.n_times, np.float64)
    step = raw.n_times if fits_memory(len(names), raw.n_times, np.float64) else PIECE_BYTES // (8 * len(names))
    for start in range(0, raw.n_times, max(1, step)):
        piece = _read_piece(path, raw, names, start, min(start + step, raw.n_times))
        for factor in factors:
            if factor is not None:
                piece *= factor
        array.write(0, start, piece)
    return array.array(), rate_hz


def _read_piece(path: Path, raw: Any, names: Sequence[str], start: int, stop: int) -> np.ndarray:
    with warnings.catch_warnings():
        # Channels at other rates than ours are resampled by MNE while reading; ours share one rate.
        warnings.filterwarnings("ignore", message="Loading an EDF with mixed sampling frequencies")
        try:
            piece: np.ndarray = raw.get_data(picks=list(names), start=start, stop=stop, verbose="WARNING")
        except MemoryError:
            raise
        except Exception as error:  # as in _open
            raise RecordingError(f"{path}: the signal cannot be read ({foreign_words(error)})") from None
    return piece


@dataclass(frozen=True)
class Records:
    """The data records of an EDF+D or BDF+D file, between which time may have passed."""

    onsets_s: np.ndarray
    """When each of them began, relative to the first."""
    duration_s: float
    """How long each of them is."""
    marks: tuple[tuple[float, float, str], ...]
    """Onset and duration by the clock, relative to the first record, and text of every annotation."""

    @property
    def breaks(self) -> np.ndarray:
        """The records that do not follow on the one before."""
        return np.flatnonzero(np.abs(np.diff(self.onsets_s) - self.duration_s) > _ROUNDING_S) + 1


def discontinuous_records(path: Path) -> Records | None:
    """The records of a file that says that it may have gaps; None for every other one.

    MNE reads the records as if they followed one another, and leaves out annotations that the gaps push off the end.

    Raises:
        RecordingError: a record does not say when it began.
    """
    if not _may_have_gaps(path):
        return None
    onsets: list[float] = []
    marks: list[tuple[float, float, str]] = []
    with path.open("rb") as file:
        header = file.read(256)
        num_signals, header_bytes = int(header[252:256]), int(header[184:192])
        labels = [file.read(16).decode("latin-1").strip() for _ in range(num_signals)]
        file.seek(256 + 216 * num_signals)
        sizes = [int(file.read(8)) * (3 if header[0] == 0xFF else 2) for _ in range(num_signals)]
        places = [place for place, label in enumerate(labels) if label.endswith(" Annotations")]
        for record in range((path.stat().st_size - header_bytes) // sum(sizes)):
            text = b""
            for place in places:
                file.seek(header_bytes + record * sum(sizes) + sum(sizes[:place]))
                text += file.read(sizes[place]) + b"\0"
            lists = _ANNOTATION_LIST.findall(text)
            if not lists or not lists[0][2].startswith(b"\x14"):
                raise RecordingError(f"{path}: may have gaps (EDF+D), but record {record} does not say when it began")
            onsets.append(float(lists[0][0]))
            for onset, duration, words in lists:
                said = [word.decode("utf-8", "replace") for word in words.split(b"\x14") if word]
                marks += [(float(onset), float(duration or 0), word) for word in said]
    first = onsets[0] if onsets else 0.0
    return Records(
        onsets_s=np.array(onsets) - first,
        duration_s=float(header[244:252]),
        marks=tuple((onset - first, duration, word) for onset, duration, word in marks),
    )


def _open(path: Path, opener: Callable[[], Any]) -> Any:
    with warnings.catch_warnings(record=True) as caught, _without_printed_warnings():
        warnings.simplefilter("always")
        try:
            raw = opener()
        except MemoryError:
            raise
        except Exception as error:  # readers fail in as many ways as files can be broken
            raise RecordingError(f"{path}: MNE cannot read this file ({foreign_words(error)})") from None
    for warning in caught:
        text = str(warning.message)
        if text.startswith(_TRUNCATED):
            _refuse_truncated(path)
        if text.startswith("Omitted") and path.suffix.lower() == ".vhdr":
            raise RecordingError(f"{path}: truncated: markers lie behind the end of the signal; copy it again")
        if text.startswith(_BEHIND_THE_END) and _may_have_gaps(path):
            continue  # `recording.read_recording` takes a clock's times to those of the signal
        if not any(pattern.match(text.strip()) for pattern in _UNDERSTOOD):
            kind = warning.category.__name__
            logger.warning("%s: MNE warns (%s); to read what may quote the header, open the file", spoken_name(), kind)
    return raw


def _open_neuroscan(path: Path) -> Any:
    """A header may not say whether values have 2 or 4 bytes; then only one of the two is an EEG."""
    with path.open("rb") as file:
        end_of_signal = int.from_bytes(file.read(890)[886:], "little", signed=True)
    if path.stat().st_size < end_of_signal:
        raise RecordingError(
            f"{path}: truncated: the signal ends at byte {end_of_signal}, the file holds {path.stat().st_size}; "
            "copy it again"
        )
    found = {}
    for data_format in ("auto", "int16", "int32"):
        with contextlib.suppress(RecordingError):
            raw = _open(path, lambda: mne.io.read_raw_cnt(path, data_format=data_format, verbose="WARNING"))  # noqa: B023 - called at once
            if data_format == "auto":
                return raw
            amplitude = typical_amplitude_uv(raw.get_data(verbose="WARNING") * 1e6, float(raw.info["sfreq"]))
            if is_plausible(amplitude):
                found[data_format] = raw
    if len(found) != 1:
        raise RecordingError(
            f"{path}: the header does not say whether values have 2 or 4 bytes, and "
            f"{'neither is' if not found else 'both could be'} an EEG; export the file as EDF"
        )
    return next(iter(found.values()))


@contextlib.contextmanager
def _without_printed_warnings() -> Iterator[None]:
    """MNE also prints each warning, to standard output; `_open` logs their kind with the recording's id."""
    printed = logging.getLogger("mne")

    def is_no_warning(record: logging.LogRecord) -> bool:
        return record.levelno != logging.WARNING

    printed.addFilter(is_no_warning)
    try:
        yield
    finally:
        printed.removeFilter(is_no_warning)


def _native_rates(raw: Any) -> dict[str, float]:
    """Rates of an EDF, BDF or GDF file's channels; MNE has no public view of what the file declared."""
    extras = raw._raw_extras[0] if raw._raw_extras else None
    if not isinstance(extras, dict) or "n_samps" not in extras or "record_length" not in extras:
        return {}
    seconds = float(extras["record_length"][0]) / float(extras["record_length"][1])
    numbers = np.ravel(extras["n_samps"])[extras["sel"]]
    return {name: float(number) / seconds for name, number in zip(raw.ch_names, numbers, strict=False)}


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


def _may_have_gaps(path: Path) -> bool:
    """Whether a file says that its data records need not follow one another."""
    if path.suffix.lower() not in (".edf", ".bdf"):
        return False
    with path.open("rb") as file:
        return file.read(256)[192:197] in (b"EDF+D", b"BDF+D")


def _begins_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic
