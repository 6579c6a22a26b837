"""Finished recordings of a store in the making, so that none is read twice however often the work is interrupted.

A recording becomes a *part* in ``STORE/.parts``: its windows as plain Arrow, then its account, which makes it count.
Shards are put together from parts. A shard that the plan no longer wants as it is retires to the same folder, and the
recordings in it serve as parts too. The folder is removed once the manifest stands.
"""

import dataclasses
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from neurolm.datasets.accounting import RecordingAccount, ShardAccount
from neurolm.eeg.fingerprint_files import (
    RecordingFingerprint,
    find_fingerprint,
    fingerprints_beside,
    move_fingerprints,
    write_fingerprints,
)
from neurolm.eeg.shard_writer import ROW_GROUP_BYTES, aside, publish
from neurolm.eeg.window_table import SignalType, StoredWindow, WindowTable, part_schema, to_table

FOLDER = ".parts"
ACCOUNTS = "accounts"


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the windows of a finished recording lie."""

    file: Path
    first_row: int
    account: RecordingAccount

    def fingerprint(self) -> RecordingFingerprint:
        """The recording's fingerprint, which lies beside its windows."""
        return find_fingerprint(self.file, self.account.recording)

    def windows(self) -> Iterator[StoredWindow]:
        """The recording's windows, one batch of rows in memory at a time."""
        skipped, left = self.first_row, self.account.num_windows
        for batch in _batches(self.file) if left else ():
            chosen = batch.slice(skipped, left)
            skipped = max(0, skipped - len(batch))
            left -= len(chosen)
            yield from WindowTable(chosen)
            if not left:
                return


class Parts:
    """The finished recordings of a store: in parts, in its shards, and in shards that have retired."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.folder = store / FOLDER
        self.shards = {path.stem: _shard_account(path) for path in sorted((store / ACCOUNTS).glob("*.json"))}
        """Accounts of the store's shards by the name of their file."""
        self._places: dict[tuple[str, str], Place] = {}
        for name, account in list(self.shards.items()):
            if self._retired(account).exists() and not (store / name).exists():
                self.retire(name)  # where an earlier run was killed
            else:
                self._add_shard(store / name, account)
        self.refresh()

    def refresh(self) -> None:
        """Take notice of the parts that others have written."""
        retired = sorted(self.folder.glob("*.parquet"))
        for path in retired:
            if path.with_suffix(".json").exists():
                self._add_shard(path, _shard_account(path.with_suffix(".json")))
        for path in sorted(set(self.folder.glob("*.json")) - {path.with_suffix(".json") for path in retired}):
            account = RecordingAccount(**json.loads(path.read_text()))
            self._places[account.recording, account.origin] = Place(path.with_suffix(".arrow"), 0, account)

    def find(self, recording: str, origin: str) -> Place | None:
        """A recording that is finished, or quarantined, and made from just this."""
        return self._places.get((recording, origin))

    def is_current(self, name: str, wanted: Sequence[Place | None]) -> bool:
        """Whether a shard is in the store and holds just these recordings."""
        account = self.shards.get(name)
        if account is None or not _is_whole(self.store / name, account):
            return False
        return account.parts == [place and place.account for place in wanted]

    def retire(self, name: str) -> None:
        """Take a shard out of the store; its recordings stay at hand."""
        account = self.shards.pop(name)
        retired = self._retired(account)
        if (self.store / name).exists():
            (self.store / name).replace(retired)
        move_fingerprints(self.store / name, retired)
        account_path(self.store, name).replace(retired.with_suffix(".json"))
        self._add_shard(retired, account, instead_of=self.store / name)

    def remove(self) -> None:
        """Remove the folder with everything in it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _retired(self, account: ShardAccount) -> Path:
        return self.folder / f"{account.sha256[:16]}.parquet"

    def _add_shard(self, file: Path, account: ShardAccount, instead_of: Path | None = None) -> None:
        first_row = 0
        for part in account.parts if _is_whole(file, account) else ():
            known = self._places.get((part.recording, part.origin))
            if known is None or known.file == instead_of:
                self._places[part.recording, part.origin] = Place(file, first_row, part)
            first_row += part.num_windows


class PartWriter:
    """Writes a recording's windows; the part counts once its account is there too."""

    def __init__(self, folder: Path, account: RecordingAccount, signal_dtype: SignalType) -> None:
        self._path = folder / f"{account.recording}-{account.origin}.arrow"
        self._account = account
        self._schema = part_schema(signal_dtype)

    def write(self, windows: Iterable[StoredWindow]) -> None:
        """Write the windows, about a row group of them in memory at a time."""
        written = aside(self._path)
        try:
            with pa.OSFile(str(written), "wb") as file, pa.ipc.new_file(file, self._schema) as arrow:
                for group in _groups(windows):
                    arrow.write_table(to_table(group, self._schema))
            publish(written, self._path)
        finally:
            written.unlink(missing_ok=True)

    def write_fingerprint(self, fingerprint: RecordingFingerprint) -> None:
        """Write the fingerprint of the windows."""
        write_fingerprints(self._path, [fingerprint])

    def close(self) -> None:
        """Write the account, after everything else; of a recording in quarantine that is all."""
        write_account(self._path.with_suffix(".json"), self._account, self._path.parent)


def write_account(path: Path, account: RecordingAccount | ShardAccount, folder: Path) -> None:
    """Write an account; it appears whole, from a folder that may keep what a killed process leaves."""
    written = aside(folder / path.name)
    written.write_text(json.dumps(account, default=vars, sort_keys=True) + "\n")
    publish(written, path)


def account_path(store: Path, name: str) -> Path:
    """The file of a shard's account."""
    return store / ACCOUNTS / f"{name}.json"


def _shard_account(path: Path) -> ShardAccount:
    return ShardAccount.from_dict(json.loads(path.read_text()))


def _is_whole(file: Path, account: ShardAccount) -> bool:
    return file.exists() and file.stat().st_size == account.num_bytes and fingerprints_beside(file).exists()


def _groups(windows: Iterable[StoredWindow]) -> Iterator[list[StoredWindow]]:
    group: list[StoredWindow] = []
    num_bytes = 0
    for window in windows:
        group.append(window)
        num_bytes += window.signal.nbytes
        if num_bytes >= ROW_GROUP_BYTES:
            yield group
            group, num_bytes = [], 0
    if group:
        yield group


def _batches(file: Path) -> Iterator[Any]:
    """Rows of a part or a retired shard, a row group at a time."""
    if file.suffix == ".arrow":
        with pa.OSFile(str(file)) as source, pa.ipc.open_file(source) as arrow:
            for number in range(arrow.num_record_batches):
                yield arrow.get_batch(number)
        return
    with pq.ParquetFile(file) as parquet:
        for group in range(parquet.num_row_groups):
            yield parquet.read_row_group(group, use_threads=False)
