"""Shards of EEG tokens: those of a store once more, with ``features`` and ``codes`` in place of ``signal``.

A shard has the name, the rows and the row groups of the shard it was made from, and all its other columns. Where its
tokens come from stands in the file itself, so that an interrupted job knows which shards it has. The test split has no
token shards: its windows are encoded when an evaluation opens them.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neurolm.eeg.manifest import Manifest
from neurolm.eeg.shards import Store, StoredWindow
from neurolm.eeg.tokens import TokenDtype, token_columns, token_fields

SPLITS_WITH_TOKENS = ("train", "val")
_ORIGIN = b"neurolm.token_origin"

Encode = Callable[[Sequence[StoredWindow]], Sequence[StoredWindow]]
"""Gives windows their tokens."""


@dataclass(frozen=True)
class TokenOrigin:
    """What tokens are made from and how: where any of it differs, they are other tokens."""

    tokenizer: str
    """Digest of the weights and settings of encoder and quantizer."""
    data: str
    """Data digest of the source store; in a single shard the SHA-256 of its source shard."""
    compat_pad_to: int | None
    dtype: TokenDtype


@dataclass(frozen=True)
class TokenShard:
    """A shard of a store that is to be encoded."""

    name: str
    split: str
    first_row: int
    """Row of its first window in the store."""
    num_windows: int
    source_sha256: str


def token_shards(manifest: Manifest) -> list[TokenShard]:
    """The shards of a store that get tokens, in the order of its rows."""
    shards, row = [], 0
    for file in sorted(manifest.files, key=lambda file: str(file["name"])):
        if file["split"] in SPLITS_WITH_TOKENS:
            shards.append(TokenShard(file["name"], file["split"], row, file["num_windows"], file["sha256"]))
        row += file["num_windows"]
    return shards


def written_origin(path: Path) -> bytes | None:
    """What a Parquet file says about the origin of its tokens; None where it holds none or cannot be read."""
    try:
        return (pq.read_metadata(path).metadata or {}).get(_ORIGIN)
    except (OSError, pa.ArrowInvalid):
        return None


def has_tokens(folder: Path, shard: TokenShard, origin: TokenOrigin) -> bool:
    """Whether a shard was written before, from the same source shard by the same tokenizer in the same form."""
    return written_origin(folder / shard.name) == _described(origin, shard)


def write_token_shard(folder: Path, store: Store, shard: TokenShard, origin: TokenOrigin, encode: Encode) -> None:
    """Encode a shard, one row group in memory at a time; the file appears whole or not at all."""
    path = folder / shard.name
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with pq.ParquetFile(store.path / shard.name) as source:
            kept = [field for field in source.schema_arrow if field.name != "signal"]
            schema = pa.schema([*kept, *token_fields(origin.dtype)], {_ORIGIN: _described(origin, shard)})
            with pq.ParquetWriter(temporary, schema, **_parquet_settings(schema)) as writer:
                row = shard.first_row
                for group in range(source.num_row_groups):
                    table = source.read_row_group(group, columns=[field.name for field in kept])
                    windows = encode(store.read(np.arange(row, row + table.num_rows)))
                    columns = token_columns([window.tokens for window in windows if window.tokens is not None])
                    for name, column in columns.items():
                        table = table.append_column(schema.field(name), column)
                    writer.write_table(table.select(schema.names).cast(schema), row_group_size=table.num_rows)
                    row += table.num_rows
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def account(folder: Path, shard: TokenShard) -> dict[str, Any]:
    """What the manifest says about a written shard."""
    described = dataclasses.asdict(shard)
    described.pop("first_row")
    return described | {"num_bytes": (folder / shard.name).stat().st_size}


def _described(origin: TokenOrigin, shard: TokenShard) -> bytes:
    of_shard = dataclasses.replace(origin, data=shard.source_sha256)
    return json.dumps(dataclasses.asdict(of_shard), sort_keys=True).encode()


def _parquet_settings(schema: Any) -> dict[str, Any]:
    """Features compress to 0.7 of their size with the bytes of each element apart, and not at all as they are."""
    texts = [field.name for field in schema if field.type == pa.string() and field.name != "window_digest"]
    return {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": texts,
        "column_encoding": {"features.list.element": "BYTE_STREAM_SPLIT"},
    }
