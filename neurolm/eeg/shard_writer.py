"""One shard: windows in a Parquet file of plain Arrow types, one row a window, one split a file.

Any Parquet reader can open it: ``signal`` is channel-major and flattened, so ``reshape(-1, num_times)`` gives
[channels times] in µV.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from neurolm.eeg.tokens import StoredTokens

SCHEMA: pa.Schema = pa.schema(
    [
        pa.field("signal", pa.list_(pa.field("element", pa.float32(), nullable=False)), nullable=False),
        pa.field("channel_indices", pa.list_(pa.field("element", pa.int16(), nullable=False)), nullable=False),
        pa.field("num_times", pa.int32(), nullable=False),
        pa.field("data_set", pa.string(), nullable=False),
        pa.field("subject", pa.string(), nullable=False),
        pa.field("recording", pa.string(), nullable=False),
        pa.field("start_s", pa.float64(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("window_digest", pa.string(), nullable=False),
    ]
)
ROW_GROUP_BYTES = 16 * 2**20
"""Signal bytes of a row group: what is read at once, and what a lane of the global order holds in memory."""

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class StoredWindow:
    """A window as it is stored; subject and recording are keyed ids."""

    signal: NDArray[np.float32]
    """[channels times], µV at 200 Hz; of no time point where ``tokens`` stand for it."""
    channel_indices: NDArray[np.int16] | Sequence[int]
    data_set: str
    subject: str
    recording: str
    start_s: float
    label: str | None
    row: int = -1
    """Number of the row in the store; -1 until read from one."""
    tokens: StoredTokens | None = None
    """The frozen tokenizer's output, in windows of a token store."""


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
    return hashlib.sha256(head + b"\0" + indices.tobytes() + signal.tobytes()).hexdigest()


def combine_digests(window_digests: Iterable[str]) -> str:
    """The data digest: SHA-256 over the sorted digests, whatever the order of windows and files."""
    return hashlib.sha256("\n".join(sorted(window_digests)).encode()).hexdigest()


class ShardWriter:
    """Writes one shard; the file appears under its name when the ``with`` block ends without an error.

    Row groups fill to about `ROW_GROUP_BYTES`. The same windows always give the same bytes.
    """

    def __init__(self, path: Path, row_group_bytes: int = ROW_GROUP_BYTES) -> None:
        self.path = Path(path)
        self.split = split_of(path)
        self.num_windows = 0
        self._row_group_bytes = row_group_bytes
        self._temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        self._buffer: list[StoredWindow] = []
        self._buffer_bytes = 0

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._parquet = pq.ParquetWriter(
            self._temporary, SCHEMA, compression="zstd", compression_level=1,
            use_dictionary=["data_set", "subject", "recording", "label"],
        )  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
            self._parquet.close()
            if kind is None:
                with self._temporary.open("rb") as file:
                    os.fsync(file.fileno())
                self._temporary.replace(self.path)
        finally:
            self._temporary.unlink(missing_ok=True)

    def write(self, windows: Iterable[StoredWindow]) -> None:
        """Add windows in the order given."""
        for window in windows:
            if window.signal.ndim != 2 or len(window.signal) != len(window.channel_indices):
                raise ValueError(f"signal {window.signal.shape} has not {len(window.channel_indices)} channels")
            self._buffer.append(window)
            self._buffer_bytes += window.signal.nbytes
            self.num_windows += 1
            if self._buffer_bytes >= self._row_group_bytes:
                self._flush()

    def _flush(self) -> None:
        if not self._buffer:
            return
        windows = self._buffer
        columns = {
            "signal": _list_array([window.signal.reshape(-1) for window in windows], np.float32),
            "channel_indices": _list_array([np.asarray(window.channel_indices) for window in windows], np.int16),
            "num_times": [window.signal.shape[1] for window in windows],
            "data_set": [window.data_set for window in windows],
            "subject": [window.subject for window in windows],
            "recording": [window.recording for window in windows],
            "start_s": [window.start_s for window in windows],
            "label": [window.label for window in windows],
            "window_digest": [window_digest(window, self.split) for window in windows],
        }
        self._parquet.write_table(pa.table(columns, schema=SCHEMA), row_group_size=len(windows))
        self._buffer, self._buffer_bytes = [], 0


def _list_array(values: Sequence[NDArray[Any]], dtype: Any) -> pa.ListArray:
    offsets = np.cumsum([0, *(len(value) for value in values)], dtype=np.int32)
    flat = pa.array(np.concatenate(values).astype(dtype, copy=False))
    kind = SCHEMA.field("signal" if dtype is np.float32 else "channel_indices").type
    return pa.ListArray.from_arrays(pa.array(offsets), flat, type=kind)
