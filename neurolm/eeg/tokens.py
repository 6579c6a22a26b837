"""EEG tokens of a window as plain Arrow columns, on disk and between processes.

Numpy has no bfloat16: such features travel as their bit patterns in uint16, the upper half of a float32. With numpy
alone they are read as ``(bits.astype("<u4") << 16).view("<f4")``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

TokenDtype = Literal["bfloat16", "float32"]
"""In which precision features are kept."""

_ELEMENTS = {"bfloat16": pa.uint16(), "float32": pa.float32()}


@dataclass(frozen=True)
class StoredTokens:
    """What a frozen neural tokenizer makes of one window, tokens in time-major order."""

    features: NDArray[np.uint16] | NDArray[np.float32]
    """[tokens hidden]; uint16 holds bit patterns of bfloat16."""
    codes: NDArray[np.uint16]
    """[tokens], rows of the codebook."""

    @property
    def dtype(self) -> TokenDtype:
        """Precision of the features."""
        return "bfloat16" if self.features.dtype == np.uint16 else "float32"


def token_fields(dtype: TokenDtype) -> list[Any]:
    """Arrow fields of a window's tokens: ``features``, flat, and ``codes``."""
    elements = {"features": _ELEMENTS[dtype], "codes": pa.uint16()}
    return [
        pa.field(name, pa.list_(pa.field("element", kind, nullable=False)), nullable=False)
        for name, kind in elements.items()
    ]


def token_columns(tokens: Sequence[StoredTokens]) -> dict[str, Any]:
    """The two columns of windows that carry tokens; none for no windows."""
    if not tokens:
        return {}
    kinds = {field.name: field.type for field in token_fields(tokens[0].dtype)}
    return {
        "features": _lists([one.features.reshape(-1) for one in tokens], kinds["features"]),
        "codes": _lists([one.codes for one in tokens], kinds["codes"]),
    }


def tokens_in(table: Any) -> list[StoredTokens | None]:
    """Tokens of every row of a table, as views of its memory; None for each where it has no such columns."""
    if "features" not in table.column_names:
        return [None] * table.num_rows
    features, starts = _flat(table, "features")
    codes, code_starts = _flat(table, "codes")
    rows: list[StoredTokens | None] = []
    for row in range(table.num_rows):
        own = codes[code_starts[row] : code_starts[row + 1]]
        rows.append(StoredTokens(features[starts[row] : starts[row + 1]].reshape(len(own), -1), own))
    return rows


def _lists(values: Sequence[NDArray[Any]], kind: Any) -> Any:
    offsets = pa.array(np.cumsum([0, *(len(one) for one in values)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(values), kind.value_type), type=kind)


def _flat(table: Any, name: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The elements of a list column and where each row's begin."""
    lists = table[name].combine_chunks()
    offsets = lists.offsets.to_numpy().astype(np.int64)
    return lists.values.to_numpy()[offsets[0] : offsets[-1]], offsets - offsets[0]
