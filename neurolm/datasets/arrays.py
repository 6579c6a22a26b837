"""Recordings that are published as plain arrays (.mat, .csv), which MNE does not read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from neurolm.eeg.amplitude import AMPLITUDE_RANGE_UV, is_plausible, typical_amplitude_uv
from neurolm.eeg.channels import canonical_name
from neurolm.eeg.recording import Recording, RecordingError


def read_csv(path: Path, columns: Sequence[str | int]) -> NDArray[np.float64]:
    """[columns rows] of a comma-separated file; columns by the names in its first line, or by number without one.

    Raises:
        RecordingError: missing or unreadable file, missing column, something that is no number.
    """
    if not path.is_file():
        raise RecordingError(f"{path}: no such recording")
    has_header = isinstance(columns[0], str)
    names = [column if isinstance(column, str) else f"f{column}" for column in columns]
    try:
        table = pyarrow.csv.read_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(autogenerate_column_names=not has_header),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=names, column_types=dict.fromkeys(names, pa.float64())
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
        raise RecordingError(f"{path}: not the expected table ({error})") from None
    return np.array([table[name].to_numpy() for name in names])


def recording_of(
    path: Path, signal_uv: NDArray[np.floating[Any]], sampling_rate_hz: float, channels: Sequence[str]
) -> Recording:
    """A recording of an array [channels times] in µV, checked as a file that MNE reads is.

    Raises:
        RecordingError: another shape than the channels say, no signal, or an amplitude that no EEG has.
    """
    if signal_uv.ndim != 2 or len(signal_uv) != len(channels) or not signal_uv.shape[1]:
        raise RecordingError(f"{path}: an array of shape {signal_uv.shape}; expected ({len(channels)} channels, times)")
    amplitude = typical_amplitude_uv(signal_uv, sampling_rate_hz)
    low, high = AMPLITUDE_RANGE_UV
    if amplitude is not None and not is_plausible(amplitude):
        raise RecordingError(
            f"{path}: typical amplitude {amplitude:.3g} µV is no EEG (expected {low:g} to {high:g} µV): "
            "this copy is in another unit than the published one"
        )
    return Recording(
        signal=np.asarray(signal_uv, dtype=np.float64),
        sampling_rate_hz=sampling_rate_hz,
        channels=tuple(canonical_name(channel) for channel in channels),
    )
