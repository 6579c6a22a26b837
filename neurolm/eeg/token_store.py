"""Stores of EEG tokens: a frozen encoder's output beside a store of windows, read in place of its signals.

Which windows there are, their labels and their order remain the source store's affair; a token store only answers to
the same row numbers, and is refused wherever it was made from something else.
"""

import json
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from neurolm.config import UserError
from neurolm.eeg.manifest import MANIFEST, Manifest
from neurolm.eeg.shards import CACHE_BYTES, SealedSplitError, Store, StoredWindow
from neurolm.eeg.token_shards import TokenOrigin, token_shards
from neurolm.eeg.tokens import tokens_in

KIND = "eeg tokens"
SCHEMA_VERSION = 1
REMEDY = "write them with ray_jobs/tokenize_eeg.py or `neurolm tokenize`, or read signals instead with data.tokens=none"


class TokenStoreError(UserError):
    """A folder that is no finished store of EEG tokens, or whose files are not as it says."""


class TokenMismatch(TokenStoreError):
    """EEG tokens of another tokenizer, of other data or in another form than a run needs."""


@dataclass(frozen=True, kw_only=True)
class TokenManifest:
    """A token store's account; written last."""

    origin: TokenOrigin
    files: list[dict[str, Any]]
    """``{name, split, num_windows, source_sha256, num_bytes}`` per shard."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Reason to number of windows of the source store that have no tokens here."""

    @property
    def num_windows(self) -> int:
        """Windows with tokens."""
        return sum(file["num_windows"] for file in self.files)

    @property
    def num_bytes(self) -> int:
        """Size on disk."""
        return sum(file["num_bytes"] for file in self.files)


def write_token_manifest(folder: Path, manifest: TokenManifest) -> None:
    """Finish a token store."""
    temporary = folder / f".{MANIFEST}.tmp"
    with temporary.open("w") as file:
        json.dump({"kind": KIND, "schema_version": SCHEMA_VERSION, **asdict(manifest)}, file, indent=1, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / MANIFEST)


def read_token_manifest(folder: Path) -> TokenManifest:
    """The manifest of a finished token store. Raises TokenStoreError."""
    path = folder / MANIFEST
    if not path.is_file():
        what = "holds no manifest: its writing did not finish" if folder.is_dir() else "does not exist"
        raise TokenStoreError(f"{folder}: this store of EEG tokens {what}; {REMEDY}")
    if not is_token_manifest(path):
        raise TokenStoreError(f"{folder}: this folder holds something else than EEG tokens; mend the path, or {REMEDY}")
    values = json.loads(path.read_text())
    values.pop("kind")
    if (version := values.pop("schema_version", None)) != SCHEMA_VERSION:
        raise TokenStoreError(f"{path}: schema version {version}, this code reads {SCHEMA_VERSION}; {REMEDY}")
    return TokenManifest(**{**values, "origin": TokenOrigin(**values["origin"])})


def is_token_manifest(path: Path) -> bool:
    """Whether a manifest is that of a token store, of any version."""
    try:
        values = json.loads(path.read_text())
    except json.JSONDecodeError:
        return False
    return isinstance(values, dict) and values.get("kind") == KIND


class TokenStore:
    """Training and validation windows with EEG tokens in place of signals, by the row numbers of their store."""

    def __init__(self, path: Path, manifest: TokenManifest, source: Manifest, cache_bytes: int) -> None:
        self.path = path
        self.manifest = manifest
        self._cache_bytes = cache_bytes
        self._num_kept = 1
        self._cache: OrderedDict[int, list[StoredWindow]] = OrderedDict()
        self._groups: list[tuple[str, int]] = []  # shard, row group in it
        ranges: list[tuple[int, int]] = []  # first row and the one after the last, in the source store
        for shard in token_shards(source):
            row = shard.first_row
            for number, size in enumerate(self._row_group_sizes(shard.name, shard.num_windows)):
                self._groups.append((shard.name, number))
                ranges.append((row, row + size))
                row += size
        self._ranges = np.array(ranges, dtype=np.int64).reshape(-1, 2)
        self._num_rows = sum(file["num_windows"] for file in source.files)

    @staticmethod
    def open(path: Path, source: Store, cache_bytes: int = CACHE_BYTES) -> "TokenStore":
        """Open the tokens of ``source``; whose tokens they are is for `refuse_other_origin` to ask.

        Raises:
            TokenStoreError: there is no finished token store, or its shards are not as its manifest says.
            TokenMismatch: it was made from other data.
        """
        manifest = read_token_manifest(path)
        refuse_other_origin(path, manifest.origin, replace(manifest.origin, data=source.digest))
        made_from = {file["name"]: file["source_sha256"] for file in manifest.files}
        for shard in token_shards(source.manifest):
            # The data digest does not know how windows are dealt to shards; rows must agree too.
            if made_from.get(shard.name) != shard.source_sha256:
                raise TokenMismatch(
                    f"{path}: shard {shard.name}: EEG tokens of a file with SHA-256 {made_from.get(shard.name)}, the "
                    f"file in {source.path} has {shard.source_sha256}: the store was made again; {REMEDY}"
                )
        return TokenStore(path, manifest, source.manifest, cache_bytes)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_cache": OrderedDict()}  # another process fills its own

    def read(self, rows: NDArray[np.int64] | Sequence[int]) -> list[StoredWindow]:
        """Windows by row number, in the order asked; their signals are of no time point.

        Raises:
            SealedSplitError: a row of the test split, which has no tokens.
            IndexError: a row that the source store does not have.
        """
        wanted = np.asarray(rows, dtype=np.int64)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= self._num_rows):
            raise IndexError(f"{self.path}: rows {wanted.min()} to {wanted.max()} of a store of {self._num_rows}")
        groups = np.searchsorted(self._ranges[:, 0], wanted, side="right") - 1
        if len(wanted) and ((groups < 0) | (wanted >= self._ranges[groups, 1])).any():
            raise SealedSplitError(f"{self.path}: the test split has no EEG tokens; only evaluate opens it")
        windows: list[StoredWindow | None] = [None] * len(wanted)
        for group in np.unique(groups):  # one after another, so that a small cache decodes each only once
            decoded = self._row_group(int(group))
            for place in np.flatnonzero(groups == group):
                windows[place] = decoded[int(wanted[place] - self._ranges[group, 0])]
        return [window for window in windows if window is not None]

    def views(self, rows: NDArray[np.int64] | Sequence[int]) -> list[StoredWindow]:
        """The same; tokens are views in any case."""
        return self.read(rows)

    def keep_row_groups(self, number: int) -> None:
        """Make room for so many decoded row groups, however large they are."""
        self._num_kept = max(self._num_kept, number)

    def _row_group_sizes(self, name: str, expected: int) -> list[int]:
        path = self.path / name
        try:
            metadata = pq.read_metadata(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise TokenStoreError(f"{path}: this shard cannot be read ({error}); delete it and {REMEDY}") from None
        if metadata.num_rows != expected:
            raise TokenStoreError(
                f"{path}: {metadata.num_rows} windows, its source has {expected}; delete it and {REMEDY}"
            )
        return [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]

    def _row_group(self, group: int) -> list[StoredWindow]:
        if group in self._cache:
            self._cache.move_to_end(group)
            return self._cache[group]
        name, number = self._groups[group]
        with pq.ParquetFile(self.path / name) as parquet:
            windows = _windows(parquet.read_row_group(number), int(self._ranges[group, 0]))
        self._cache[group] = windows
        while len(self._cache) > self._num_kept and sum(map(_num_bytes, self._cache.values())) > self._cache_bytes:
            self._cache.popitem(last=False)
        return windows


def refuse_other_origin(path: Path, found: TokenOrigin, expected: TokenOrigin) -> None:
    """Tokens serve one tokenizer, one store and one form only. Raises TokenMismatch, which names both values."""
    words = {
        "tokenizer": "the tokenizer (digest)",
        "data": "the data (digest)",
        "compat_pad_to": "compat_pad_to",
        "dtype": "data.tokens",
    }
    differences = [
        f"{words[name]} is {value} here and {wanted} in this run"
        for name, value in asdict(found).items()
        if value != (wanted := getattr(expected, name))
    ]
    if differences:
        raise TokenMismatch(f"{path}: these are other EEG tokens: {'; '.join(differences)}. Stop, or {REMEDY}")


def _windows(table: Any, first_row: int) -> list[StoredWindow]:
    own = {one.name for one in fields(StoredWindow)} & set(table.column_names) - {"channel_indices", "quality"}
    columns = {name: table[name].to_pylist() for name in sorted(own)}
    windows = []
    for place, tokens in enumerate(tokens_in(table)):
        channels = table["channel_indices"][place].values.to_numpy()
        windows.append(
            StoredWindow(
                signal=np.empty((len(channels), 0), dtype=np.float32),
                channel_indices=channels,
                tokens=tokens,
                row=first_row + place,
                **{name: values[place] for name, values in columns.items()},
            )
        )
    return windows


def _num_bytes(windows: list[StoredWindow]) -> int:
    return sum(window.tokens.features.nbytes for window in windows if window.tokens is not None)
