"""One shard: windows in a Parquet file of plain Arrow types (`window_table`), one row a window, one split a file."""

import hashlib
import os
import secrets
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow.parquet as pq

from neurolm.eeg.window_table import SCHEMA, SignalType, StoredWindow, shard_schema, to_table

__all__ = ["ROW_GROUP_BYTES", "SCHEMA", "SPLITS", "ShardWriter", "StoredWindow", "combine_digests", "split_of",
           "window_digest"]  # fmt: skip

ROW_GROUP_BYTES = 16 * 2**20
"""Signal bytes from which on a row group is full: what is read at once, and what a lane of the global order holds in
memory. The last one takes the rest, so that none but a whole shard is smaller and none is twice as large."""

SPLITS = ("train", "val", "test")


def split_of(path: str | Path) -> str:
    """The split of a shard, which is the first word of its name: ``train-...parquet``."""
    split = Path(path).name.split("-")[0].removesuffix(".parquet")
    if split not in SPLITS:
        raise ValueError(f"{path}: the name of a shard begins with its split: {', '.join(SPLITS)}")
    return split


def window_digest(window: StoredWindow, split: str) -> str:
    """SHA-256 of what a window teaches: signal, channels, label, data set and split; no ids, names or times."""
    indices = np.asarray(window.channel_indices, dtype="<i2")
    head = repr((window.data_set, window.label, split, window.signal.shape, indices.shape)).encode()
    signal = np.ascontiguousarray(window.signal, dtype="<f4")
    digest = hashlib.sha256(head + b"\0" + indices.tobytes())
    digest.update(signal.data)
    return digest.hexdigest()


def combine_digests(window_digests: Iterable[str]) -> str:
    """The data digest: SHA-256 over the sorted digests, whatever the order of windows and files."""
    return hashlib.sha256("\n".join(sorted(window_digests)).encode()).hexdigest()


class ShardWriter:
    """Writes one shard; the file appears under its name when the ``with`` block ends without an error.

    Row groups fill to about ``row_group_bytes``. The same windows always give the same bytes.
    """

    def __init__(
        self, path: Path, row_group_bytes: int = ROW_GROUP_BYTES, signal_dtype: SignalType = "float32"
    ) -> None:
        self.path = Path(path)
        self.split = split_of(path)
        self.digests: list[str] = []
        """Of the windows written, in their order."""
        self._schema = shard_schema(signal_dtype)
        self._row_group_bytes = row_group_bytes
        self._signal_dtype = np.dtype(signal_dtype)
        self._full: list[StoredWindow] = []  # a row group that waits for the next one to be full
        self._filling: list[StoredWindow] = []
        self._filling_bytes = 0

    @property
    def num_windows(self) -> int:
        """Windows written so far."""
        return len(self.digests)

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = aside(self.path)
        self._parquet = pq.ParquetWriter(
            self._temporary, self._schema, compression="zstd", compression_level=1,
            use_dictionary=["data_set", "subject", "recording", "label", "split"],
            use_byte_stream_split=["signal.list.element"],
        )  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._write_group(self._full + self._filling)
            self._parquet.close()
            if kind is None:
                publish(self._temporary, self.path)
        finally:
            self._temporary.unlink(missing_ok=True)

    def write(self, windows: Iterable[StoredWindow]) -> None:
        """Add windows in the order given."""
        for window in windows:
            if window.signal.ndim != 2 or len(window.signal) != len(window.channel_indices):
                raise ValueError(f"signal {window.signal.shape} has not {len(window.channel_indices)} channels")
            if window.quality is not None and len(window.quality) != len(window.channel_indices):
                raise ValueError(f"quality of {len(window.quality)} channels, the window has {len(window.signal)}")
            window = replace(window, signal=window.signal.astype(self._signal_dtype, copy=False))
            self.digests.append(window_digest(window, self.split))
            self._filling.append(window)
            self._filling_bytes += window.signal.nbytes
            if self._filling_bytes >= self._row_group_bytes:
                self._write_group(self._full)
                self._full, self._filling, self._filling_bytes = self._filling, [], 0

    def _write_group(self, windows: list[StoredWindow]) -> None:
        if not windows:
            return
        first = self.num_windows - len(self._full) - len(self._filling)
        digests = self.digests[first : first + len(windows)]
        own = {"split": [self.split] * len(windows), "window_digest": digests}
        self._parquet.write_table(to_table(windows, self._schema, own), row_group_size=len(windows))


def aside(path: Path) -> Path:
    """A name of its own beside a path, under which any process of any machine can write what `publish` will show."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")


def publish(written: Path, path: Path) -> None:
    """Let a file that is written appear under its name, whole even if the machine stops."""
    with written.open("rb") as file:
        os.fsync(file.fileno())
    written.replace(path)
