"""Stores: a folder of shards and a manifest that is written last; here they are read, by global row number."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from neurolm.eeg.manifest import Manifest, ManifestError, ManifestMissing, read_manifest, write_manifest
from neurolm.eeg.schema_checks import refuse_extension_types, refuse_other_columns, schema_of
from neurolm.eeg.sealing import SealedSplitError, TestOpening, count_openings, open_test_split
from neurolm.eeg.shard_writer import ROW_GROUP_BYTES, SPLITS, ShardWriter, combine_digests, split_of, window_digest
from neurolm.eeg.window_table import SCHEMA, SignalType, StoredWindow, WindowTable, shard_schema

__all__ = [
    "ROW_GROUP_BYTES", "SCHEMA", "SPLITS", "Manifest", "ManifestError", "ManifestMissing", "SealedSplitError",
    "ShardWriter", "Store", "StoredWindow", "TestOpening", "WindowIndex", "combine_digests", "count_openings",
    "open_test_split", "read_manifest", "split_of", "window_digest", "write_manifest",
]  # fmt: skip

CACHE_BYTES = 512 * 2**20
"""Signal bytes of decoded row groups that a reader keeps."""

_SEALED = "test"
_INDEX_COLUMNS = ["channel_indices", "num_times", "data_set", "subject", "recording", "start_s", "label"]


@dataclass(frozen=True)
class WindowIndex:
    """Everything about the windows of a split but their signals; one entry a window in every array."""

    rows: NDArray[np.int64]
    row_groups: NDArray[np.int64]
    """Number of the row group in the store."""
    data_set: NDArray[np.object_]
    label: NDArray[np.object_]
    """Class names; None where unlabelled."""
    subject: NDArray[np.object_]
    recording: NDArray[np.object_]
    start_s: NDArray[np.float64]
    num_channels: NDArray[np.int64]
    num_times: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, mask: NDArray[Any]) -> "WindowIndex":
        """The windows that a boolean mask or positions select."""
        return WindowIndex(**{name: values[mask] for name, values in vars(self).items()})

    def classes(self) -> tuple[str, ...]:
        """Labels that occur, sorted."""
        return tuple(sorted({label for label in self.label if label is not None}))


class Store:
    """A finished store, read by global row number: shards in the order of their names, rows in file order.

    Test rows are refused, by index and by number, unless the store was opened with a `TestOpening` of its digest.
    """

    def __init__(self, path: Path, manifest: Manifest, opening: TestOpening | None, cache_bytes: int) -> None:
        self.path = path
        self.manifest = manifest
        self._opening = opening
        self._cache_bytes = cache_bytes
        self._cache: OrderedDict[int, WindowTable] = OrderedDict()
        self._files = sorted(manifest.files, key=lambda file: str(file["name"]))
        groups: list[tuple[int, int, int]] = []  # file, row group in the file, number of rows
        self._largest_group_bytes = 0
        self.signal_dtype: SignalType = "float32"
        for number, file in enumerate(self._files):
            metadata = self._metadata(file)
            for group in range(metadata.num_row_groups):
                groups.append((number, group, metadata.row_group(group).num_rows))
                self._largest_group_bytes = max(self._largest_group_bytes, metadata.row_group(group).total_byte_size)
            if schema_of(metadata) == shard_schema("float16"):
                self.signal_dtype = "float16"
        self._groups = groups
        self._first_rows = np.cumsum([0, *(num_rows for _, _, num_rows in groups)], dtype=np.int64)

    @staticmethod
    def open(path: str | Path, opening: TestOpening | None = None, cache_bytes: int = CACHE_BYTES) -> "Store":
        """Open a finished store.

        Raises:
            ManifestMissing: the folder has no manifest, so its making did not finish.
            ManifestError: the manifest cannot be read or its shards are not as it says.
            SealedSplitError: the opening belongs to other data.
        """
        path = Path(path)
        manifest = read_manifest(path)
        if opening is not None and opening.data_digest != manifest.data_digest:
            raise SealedSplitError(f"{path}: the test split was opened for other data ({opening.data_digest[:16]})")
        return Store(path, manifest, opening, cache_bytes)

    @property
    def digest(self) -> str:
        """The data digest."""
        return self.manifest.data_digest

    def __len__(self) -> int:
        return int(self._first_rows[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_cache": OrderedDict()}  # another process fills its own

    def index(self, split: str, data_sets: Sequence[str] | None = None) -> WindowIndex:
        """The windows of a split, in row order; ``data_sets`` None is all of them. Raises SealedSplitError."""
        if split not in SPLITS:
            raise ValueError(f"split {split!r} is none of {', '.join(SPLITS)}")
        self._refuse_sealed(split)
        parts = [
            self._index_of(number) for number, file in enumerate(self._files) if file["split"] == split
        ]  # fmt: skip
        arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else _no_windows()
        index = WindowIndex(**arrays)
        return index if data_sets is None else index.take(np.isin(index.data_set.astype(str), list(data_sets)))

    def read(self, rows: NDArray[np.int64] | Sequence[int]) -> list[StoredWindow]:
        """Windows in float32 by row number, in the order asked. Raises SealedSplitError, IndexError."""
        return [
            # Copies free the row group and may be changed.
            replace(view, signal=view.signal.astype(np.float32), channel_indices=np.array(view.channel_indices))
            for view in self.views(rows)
        ]

    def views(self, rows: NDArray[np.int64] | Sequence[int]) -> list[StoredWindow]:
        """The same as they are stored, as views of decoded row groups: nothing is copied, nothing may be changed."""
        wanted = np.asarray(rows, dtype=np.int64)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"{self.path}: rows {wanted.min()} to {wanted.max()} of a store of {len(self)} windows")
        groups = np.searchsorted(self._first_rows, wanted, side="right") - 1
        for group in np.unique(groups):
            self._refuse_sealed(self._files[self._groups[group][0]]["split"])
        windows: list[StoredWindow | None] = [None] * len(wanted)
        for group in np.unique(groups):  # one after another, so that a small cache decodes each only once
            table = self._row_group(int(group))
            for place in np.flatnonzero(groups == group):
                row = int(wanted[place])
                windows[place] = table.window(row - int(self._first_rows[group]), row=row)
        return [window for window in windows if window is not None]

    def keep_row_groups(self, number: int) -> None:
        """Make room for so many decoded row groups, however large they are."""
        self._cache_bytes = max(self._cache_bytes, number * self._largest_group_bytes)

    def _refuse_sealed(self, split: str) -> None:
        if split == _SEALED and self._opening is None:
            raise SealedSplitError(
                f"{self.path}: the test split is sealed; only evaluate opens it (and counts each opening)"
            )

    def _metadata(self, file: dict[str, Any]) -> Any:
        path = self.path / file["name"]
        if split_of(path) != file["split"]:
            raise ManifestError(f"{path}: the manifest says split {file['split']!r}; make the store again")
        try:
            refuse_extension_types(path)
            metadata = pq.read_metadata(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise ManifestError(f"{path}: this shard cannot be read ({error}); make the store again") from None
        refuse_other_columns(path, metadata)
        if metadata.num_rows != file["num_windows"]:
            raise ManifestError(
                f"{path}: {metadata.num_rows} windows, the manifest says {file['num_windows']}; make the store again"
            )
        return metadata

    def _index_of(self, number: int) -> dict[str, NDArray[Any]]:
        groups = [place for place, (file, _, _) in enumerate(self._groups) if file == number]
        sizes = [self._groups[place][2] for place in groups]
        first = self._first_rows[groups[0]] if groups else 0
        table = pq.read_table(self.path / self._files[number]["name"], columns=_INDEX_COLUMNS, partitioning=None)
        return {
            "rows": np.arange(first, first + table.num_rows, dtype=np.int64),
            "row_groups": np.repeat(np.array(groups, dtype=np.int64), sizes),
            **{
                name: np.array(table[name].to_pylist(), dtype=object)
                for name in ("data_set", "label", "subject", "recording")
            },
            "start_s": table["start_s"].to_numpy(),
            "num_channels": pc.list_value_length(table["channel_indices"]).to_numpy().astype(np.int64),
            "num_times": table["num_times"].to_numpy().astype(np.int64),
        }

    def _row_group(self, group: int) -> WindowTable:
        if group in self._cache:
            self._cache.move_to_end(group)
            return self._cache[group]
        file, place, _ = self._groups[group]
        with pq.ParquetFile(self.path / self._files[file]["name"]) as parquet:
            self._cache[group] = WindowTable(parquet.read_row_group(place, use_threads=False))
        while len(self._cache) > 1 and sum(table.nbytes for table in self._cache.values()) > self._cache_bytes:
            self._cache.popitem(last=False)
        return self._cache[group]


def _no_windows() -> dict[str, NDArray[Any]]:
    names = dict.fromkeys(("data_set", "label", "subject", "recording"), np.dtype(object))
    numbers = dict.fromkeys(("rows", "row_groups", "num_channels", "num_times"), np.dtype(np.int64))
    return {name: np.empty(0, kind) for name, kind in (names | numbers | {"start_s": np.dtype(np.float64)}).items()}
