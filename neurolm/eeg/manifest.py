"""The manifest of a store: what is in it, what was left out and why. Written last: without it there is no store."""

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from neurolm.config import UserError

MANIFEST = "manifest.json"
SCHEMA_VERSION = 2


class ManifestMissing(UserError):
    """A folder that is no finished store."""


class ManifestError(UserError):
    """A manifest that cannot be read, or files that do not agree with it."""


def code_version() -> str:
    """Version of neurolm."""
    from importlib.metadata import version

    return version("neurolm")


@dataclass(kw_only=True)
class Manifest:
    """A store's account. No name, date or path of a recording is in it."""

    data_digest: str
    """SHA-256 over the windows' contents, channels, labels and splits (`shards.combine_digests`)."""
    files: list[dict[str, Any]]
    """``{name, split, num_windows, sha256, fingerprints_sha256}`` per shard."""
    counts: dict[str, float]
    """``num_windows``, ``num_recordings``, ``num_subjects``, ``hours``, ..."""
    windows_by_split: dict[str, int] = field(default_factory=dict)
    windows_by_label: dict[str, dict[str, int]] = field(default_factory=dict)
    """Data set, then label, then number of windows."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Reason to number of windows that were not stored."""
    channels_left_out: dict[str, int] = field(default_factory=dict)
    """Channel to number of recordings in which it was there and not read; others than electrodes in one sum."""
    quarantined: dict[str, str] = field(default_factory=dict)
    """Keyed recording id to the reason why nothing of it was stored."""
    published_counts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Data set to numbers that are published, those found here, and the differences, in words."""
    data_sets: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What went in and what was stored of every data set (`accounting.by_data_set`)."""
    quality: dict[str, Any] = field(default_factory=dict)
    """``flags``: name to bit in the column ``quality``; ``thresholds``: from where on they are set."""
    preprocessing: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    """The other settings that the windows follow from: split, ``signal_dtype``, and every data set's own."""
    privacy_key_fingerprint: str | None = None
    shared_subjects: list[str] = field(default_factory=list)
    """Data sets whose published rule puts one subject into several splits."""
    code_version: str = field(default_factory=code_version)
    schema_version: int = SCHEMA_VERSION


def write_manifest(store: Path, manifest: Manifest) -> None:
    """Finish a store: the manifest appears whole, once every shard is there. Raises ManifestError."""
    missing = [file["name"] for file in manifest.files if not (store / file["name"]).is_file()]
    if missing:
        raise ManifestError(f"{store}: the manifest lists shards that are not there: {', '.join(missing)}")
    temporary = store / f".{MANIFEST}.tmp"
    with temporary.open("w") as file:
        json.dump(asdict(manifest), file, indent=1, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(store / MANIFEST)


def read_manifest(store: Path) -> Manifest:
    """The manifest of a finished store. Raises ManifestMissing, ManifestError."""
    path = store / MANIFEST
    if not path.is_file():
        what = "holds shards but no manifest: its making did not finish" if store.is_dir() else "does not exist"
        raise ManifestMissing(f"{store}: this store {what}; make it with ray_jobs/preprocess.py (or run it again)")
    try:
        values = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ManifestError(f"{path}: not valid JSON ({error}); make the store again") from None
    found = values.get("schema_version") if isinstance(values, dict) else None
    if found != SCHEMA_VERSION:
        raise ManifestError(f"{path}: schema version {found}, this code reads {SCHEMA_VERSION}; make the store again")
    known = {item.name for item in fields(Manifest)}
    if unknown := set(values) - known:
        raise ManifestError(f"{path}: unknown entries {', '.join(sorted(unknown))}")
    return Manifest(**values)
