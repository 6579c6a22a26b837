"""Windows as rows of Arrow tables of plain types, and back: the schema of shards, parts and streams.

``signal`` is channel-major and flattened, so ``reshape(-1, num_times)`` gives [channels times] in µV.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from neurolm.eeg.tokens import StoredTokens

SignalType = Literal["float32", "float16"]


@dataclass(frozen=True)
class StoredWindow:
    """A window as it is stored; subject and recording are keyed ids."""

    signal: NDArray[np.floating[Any]]
    """[channels times], µV at 200 Hz; of no time point where ``tokens`` stand for it."""
    channel_indices: NDArray[np.int16] | Sequence[int]
    data_set: str
    subject: str
    recording: str
    start_s: float
    label: str | None
    quality: NDArray[np.uint8] | None = None
    """Bits of `quality.FLAGS` of every channel, 0: no objection; None if it was not judged."""
    row: int = -1
    """Number of the row in the store; -1 until read from one."""
    tokens: StoredTokens | None = None
    """The frozen tokenizer's output, in windows of a token store."""


def _list_of(kind: Any) -> Any:
    return pa.list_(pa.field("element", kind, nullable=False))


def shard_schema(signal_dtype: SignalType = "float32") -> pa.Schema:
    """The columns of a shard: those of a part, the split and the digest."""
    return pa.schema(
        [
            pa.field("signal", _list_of(pa.from_numpy_dtype(np.dtype(signal_dtype))), nullable=False),
            pa.field("channel_indices", _list_of(pa.int16()), nullable=False),
            pa.field("num_times", pa.int32(), nullable=False),
            pa.field("data_set", pa.string(), nullable=False),
            pa.field("subject", pa.string(), nullable=False),
            pa.field("recording", pa.string(), nullable=False),
            pa.field("start_s", pa.float64(), nullable=False),
            pa.field("label", pa.string()),
            pa.field("quality", _list_of(pa.uint8())),
            pa.field("split", pa.string(), nullable=False),
            pa.field("window_digest", pa.string(), nullable=False),
        ]
    )


def part_schema(signal_dtype: SignalType = "float32") -> pa.Schema:
    """The columns of windows that belong to no split yet."""
    fields = [field for field in shard_schema(signal_dtype) if field.name not in ("split", "window_digest")]
    return pa.schema(fields)


SCHEMA: pa.Schema = shard_schema()


def to_table(windows: Sequence[StoredWindow], schema: pa.Schema, columns: Mapping[str, Any] | None = None) -> pa.Table:
    """One row a window; ``columns`` gives those that are not the windows' own. Arrays are copied once."""
    columns = dict(columns or {})
    for name in schema.names:
        if name in ("signal", "channel_indices"):
            columns[name] = _lists([np.ravel(getattr(window, name)) for window in windows], schema.field(name).type)
        elif name == "num_times":
            columns[name] = [window.signal.shape[1] for window in windows]
        elif name not in columns:
            columns[name] = [getattr(window, name) for window in windows]
    return pa.table(columns, schema=schema)


def _lists(values: Sequence[NDArray[Any]], kind: pa.ListType) -> pa.ListArray:
    dtype = kind.value_type.to_pandas_dtype()
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum([len(value) for value in values], out=offsets[1:])
    flat = np.empty(offsets[-1], dtype)
    for start, value in zip(offsets, values, strict=False):
        flat[start : start + len(value)] = value
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat), type=kind)


class WindowTable:
    """Windows of a table, one by one; signals are views of its memory, nothing is copied."""

    def __init__(self, table: pa.Table | pa.RecordBatch) -> None:
        lists = [name for name in ("signal", "channel_indices", "quality") if name in table.schema.names]
        self._lists = {name: _arrays(table.column(name)) for name in lists}
        own = {field.name for field in dataclasses.fields(StoredWindow)}
        names = [name for name in table.schema.names if name in own - set(self._lists)]
        self._plain = {name: table.column(name).to_pylist() for name in names}
        self._num_times = table.column("num_times").to_pylist()

    def __len__(self) -> int:
        return len(self._num_times)

    def __iter__(self) -> Iterator[StoredWindow]:
        return (self.window(place) for place in range(len(self)))

    @property
    def nbytes(self) -> int:
        """Bytes of the signals."""
        return int(self._lists["signal"][0].nbytes)

    def window(self, place: int, **changes: Any) -> StoredWindow:
        """The window in a row of the table; ``changes`` replace some of its fields."""
        arrays = {name: values[offsets[place] : offsets[place + 1]] for name, (values, offsets) in self._lists.items()}
        arrays["signal"] = arrays["signal"].reshape(len(arrays["channel_indices"]), -1)
        if not len(arrays.get("quality", ())):
            arrays.pop("quality", None)  # a list that is null
        plain = {name: values[place] for name, values in self._plain.items()}
        return StoredWindow(**(arrays | plain | changes))


def _arrays(column: Any) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Flat values of a list column, and where each list begins and the last one ends."""
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    offsets = column.offsets.to_numpy().astype(np.int64)
    return column.values.to_numpy(zero_copy_only=True), offsets
