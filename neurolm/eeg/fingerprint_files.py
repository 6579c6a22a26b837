"""Fingerprints beside their shards: ``fingerprints/<shard>`` in a store, one row a recording, no signal and no label.

They say who and what is in a split without opening it: the test split stays sealed while it is compared with others.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neurolm.config import UserError
from neurolm.eeg.fingerprint import FINGERPRINT_VERSION, Fingerprint
from neurolm.eeg.manifest import Manifest

FOLDER = "fingerprints"
DIGEST = "fingerprints_sha256"
"""Entry of a shard in the manifest that holds the SHA-256 of its fingerprints."""
_SCHEMA: pa.Schema = pa.schema(
    [
        pa.field("data_set", pa.string(), nullable=False),
        pa.field("subject", pa.string(), nullable=False),
        pa.field("recording", pa.string(), nullable=False),
        pa.field("hashes", pa.list_(pa.field("element", pa.uint32(), nullable=False)), nullable=False),
        pa.field("times_ms", pa.list_(pa.field("element", pa.uint32(), nullable=False)), nullable=False),
    ],
    metadata={"fingerprint_version": str(FINGERPRINT_VERSION)},
)


class FingerprintsMissing(UserError):
    """A store whose fingerprints are missing, damaged or of another version."""


@dataclass(frozen=True)
class RecordingFingerprint:
    """What a store says about a recording without its signal; subject and recording are keyed ids."""

    data_set: str
    subject: str
    recording: str
    landmarks: Fingerprint


def fingerprints_beside(windows: Path) -> Path:
    """The file of the fingerprints of a shard, or of another file of windows."""
    return windows.parent / FOLDER / windows.name


def move_fingerprints(windows: Path, to: Path) -> None:
    """Follow a file of windows that is moved; nothing happens where that was done before."""
    if fingerprints_beside(windows).exists():
        fingerprints_beside(to).parent.mkdir(exist_ok=True)
        fingerprints_beside(windows).replace(fingerprints_beside(to))


def find_fingerprint(windows: Path, recording: str) -> RecordingFingerprint:
    """The fingerprint of one of the recordings in a file of windows. Raises FingerprintsMissing."""
    path = fingerprints_beside(windows)
    if path.is_file():
        for found in _parsed(path, path.read_bytes()):
            if found.recording == recording:
                return found
    raise FingerprintsMissing(f"{path}: no fingerprint of recording {recording}; make the store again")


def write_fingerprints(shard: Path, recordings: Sequence[RecordingFingerprint]) -> str:
    """Write the fingerprints of a shard, whole or not at all; returns their SHA-256. The same ones, the same bytes."""
    path = fingerprints_beside(shard)
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        name: [getattr(recording, name) for recording in recordings] for name in ("data_set", "subject", "recording")
    }
    columns |= {
        name: [getattr(recording.landmarks, name) for recording in recordings] for name in ("hashes", "times_ms")
    }
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    encodings = {"times_ms.list.element": "DELTA_BINARY_PACKED"}
    with pq.ParquetWriter(
        aside, _SCHEMA, compression="zstd", use_dictionary=["data_set", "subject"], column_encoding=encodings
    ) as parquet:
        parquet.write_table(pa.table(columns, schema=_SCHEMA))
    digest = hashlib.sha256(aside.read_bytes()).hexdigest()
    aside.replace(path)
    return digest


def read_fingerprints(store: Path, manifest: Manifest, split: str) -> Iterator[RecordingFingerprint]:
    """The recordings of a split, shard by shard. Raises FingerprintsMissing."""
    for file in manifest.files:
        if file["split"] == split:
            yield from _read(fingerprints_beside(store / file["name"]), file.get(DIGEST))


def _read(path: Path, digest: str | None) -> Iterator[RecordingFingerprint]:
    if digest is None or not path.is_file():
        raise FingerprintsMissing(f"{path}: the fingerprints of this shard are missing; make the store again")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise FingerprintsMissing(f"{path}: not the fingerprints that the manifest names; make the store again")
    yield from _parsed(path, content)


def _parsed(path: Path, content: bytes) -> Iterator[RecordingFingerprint]:
    table = pq.read_table(pa.BufferReader(content))
    version = (table.schema.metadata or {}).get(b"fingerprint_version", b"none").decode()
    if version != str(FINGERPRINT_VERSION):
        raise FingerprintsMissing(
            f"{path}: fingerprints of version {version}, this code compares {FINGERPRINT_VERSION}; make the store again"
        )
    texts = [table[name].to_pylist() for name in ("data_set", "subject", "recording")]
    for row, (data_set, subject, recording) in enumerate(zip(*texts, strict=True)):
        hashes, times_ms = (np.asarray(table[name][row].values) for name in ("hashes", "times_ms"))
        yield RecordingFingerprint(data_set, subject, recording, Fingerprint(hashes, times_ms))
