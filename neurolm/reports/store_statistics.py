"""What the signals of a store look like: spectra and amplitudes of a sample of windows, flags of every recording.

Only training and validation windows are read; the test split stays sealed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq
import scipy.signal
from numpy.typing import NDArray

from neurolm.eeg.channels import CHANNELS
from neurolm.eeg.quality import FLAGS
from neurolm.eeg.shards import Store

READ_SPLITS = ("train", "val")
MOST_WINDOWS, MOST_ROW_GROUPS = 400, 32
"""Size of the sample of a data set: so many windows, evenly over so many row groups."""
WINDOWS_AT_ONCE = 16
SEGMENT_S = 2.0
"""Length of the segments whose spectra are averaged in a window: a resolution of 0.5 Hz."""
PERCENTILES = (5, 25, 50, 75, 95)
BINS_PER_DECADE = 10

REGIONS = {
    "frontal": {"FP", "AF", "F"},
    "central": {"FC", "C", "CP", "CFC", "CCP"},
    "temporal": {"FT", "T", "TP", "FTT", "TTP", "TPP", "A", "M"},
    "parietal": {"P", "PO"},
    "occipital": {"O", "CB", "I"},
}
"""Region of the scalp to the letters of its electrodes; a bipolar channel belongs to its first electrode's."""


@dataclass(frozen=True)
class SetStatistics:
    """The look of one data set's signals."""

    num_sampled: int
    num_windows: int
    """Windows that the sample was taken from."""
    frequencies_hz: NDArray[np.float64]
    spectra: dict[str, NDArray[np.float64]]
    """Region to [percentiles frequencies] of the power density in µV²/Hz over windows and channels."""
    amplitude_edges_uv: NDArray[np.float64]
    amplitude_counts: NDArray[np.int64]
    """How many channels of windows span so many µV, peak to peak."""


@dataclass(frozen=True)
class RecordingFlags:
    """How often a recording's channels were flagged."""

    recording: str
    """Keyed id."""
    data_set: str
    split: str
    num_windows: int
    num_judged: int
    """Channels of windows, counted one by one."""
    flagged: dict[str, int]
    """Flag to how many of them have it; ``any`` is those with any flag."""

    @property
    def share(self) -> float:
        """Share of the channels of windows that have any flag."""
        return self.flagged["any"] / self.num_judged


def set_statistics(store: Store, data_set: str, sampling_rate_hz: float) -> SetStatistics | None:
    """Statistics of a sample of the data set's windows, the same at every call; None where there are none to read."""
    rows, num_windows = _sample(store, data_set)
    if not len(rows):
        return None
    spectra: dict[str, list[NDArray[np.float32]]] = {}
    amplitudes = []
    frequencies: NDArray[np.float64] = np.empty(0)
    for first in range(0, len(rows), WINDOWS_AT_ONCE):
        for window in store.read(rows[first : first + WINDOWS_AT_ONCE]):
            segment = min(round(SEGMENT_S * sampling_rate_hz), window.signal.shape[1])
            frequencies, power = scipy.signal.welch(window.signal, sampling_rate_hz, nperseg=segment, axis=1)
            amplitudes.append(np.ptp(window.signal, axis=1))
            for region, channels in _by_region(window.channel_indices):
                spectra.setdefault(region, []).append(power[channels])
    spans = np.concatenate(amplitudes)
    edges = 10 ** np.arange(-1, 5 + 0.5 / BINS_PER_DECADE, 1 / BINS_PER_DECADE)
    return SetStatistics(
        num_sampled=len(rows),
        num_windows=num_windows,
        frequencies_hz=frequencies,
        spectra={
            region: np.percentile(np.concatenate(spectra[region]), PERCENTILES, axis=0)
            for region in REGIONS
            if region in spectra
        },
        amplitude_edges_uv=edges,
        amplitude_counts=np.histogram(np.clip(spans, edges[0], edges[-1] * 0.999), edges)[0],
    )


def recording_flags(store: Store) -> list[RecordingFlags]:
    """The flags of every training and validation recording, the most flagged first; unjudged ones are left out."""
    found: dict[tuple[str, str, str], tuple[int, NDArray[np.int64]]] = {}
    for file in store.manifest.files:
        if file["split"] not in READ_SPLITS:
            continue
        table = pq.read_table(store.path / file["name"], columns=["recording", "data_set", "quality"])
        names, codes = np.unique(np.array(table["recording"].to_pylist(), dtype=str), return_inverse=True)
        sets = dict(zip(table["recording"].to_pylist(), table["data_set"].to_pylist(), strict=True))
        quality = table["quality"].combine_chunks()
        lengths = np.diff(quality.offsets.to_numpy())
        flags, owner = quality.flatten().to_numpy(), np.repeat(codes, lengths)
        masks = [np.ones(len(flags), dtype=bool), flags > 0, *((flags & bit) > 0 for bit in FLAGS.values())]
        counts = np.stack([np.bincount(owner[mask], minlength=len(names)) for mask in masks], axis=1)
        windows = np.bincount(codes, minlength=len(names))
        for place, name in enumerate(names):
            key = (str(name), sets[name], file["split"])
            before = found.get(key, (0, np.zeros(len(masks), dtype=np.int64)))
            found[key] = (before[0] + int(windows[place]), before[1] + counts[place])
    recordings = [
        RecordingFlags(*key, num_windows, int(judged), dict(zip(("any", *FLAGS), map(int, flagged), strict=True)))
        for key, (num_windows, (judged, *flagged)) in found.items()
        if judged
    ]
    return sorted(recordings, key=lambda one: (-one.share, one.recording))


def _sample(store: Store, data_set: str) -> tuple[NDArray[np.int64], int]:
    """Rows of a sample, and how many windows there are."""
    parts = [store.index(split, [data_set]) for split in READ_SPLITS]
    rows = np.concatenate([part.rows for part in parts])
    groups = np.concatenate([part.row_groups for part in parts])
    known = np.unique(groups)
    near = rows[np.isin(groups, known[_evenly(len(known), MOST_ROW_GROUPS)])]
    return np.sort(near[_evenly(len(near), MOST_WINDOWS)]), len(rows)


def _evenly(number: int, most: int) -> NDArray[np.int64]:
    """At most so many places of ``number``, evenly spaced."""
    return np.unique(np.linspace(0, number - 1, min(number, most)).round().astype(np.int64))


def _by_region(channel_indices: NDArray[np.int16] | object) -> Iterator[tuple[str, NDArray[np.int64]]]:
    regions = np.array([region_of(CHANNELS[index]) for index in np.asarray(channel_indices)])
    for region in np.unique(regions):
        yield str(region), np.flatnonzero(regions == region)


def region_of(channel: str) -> str:
    """The region of the scalp that a channel of the vocabulary belongs to."""
    letters = channel.partition("-")[0].rstrip("0123456789Zh")
    return next(region for region, electrodes in REGIONS.items() if letters in electrodes)
