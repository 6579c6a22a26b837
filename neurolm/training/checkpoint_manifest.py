"""Proof that a checkpoint is whole: each worker's manifest of its files, with sizes and SHA-256, sealed by its own."""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

from pyarrow import fs

from neurolm.training.storage import CHUNK_BYTES, is_local, read_bytes


def sealed_manifest(rank: int, world_size: int, step: int, files: Mapping[str, Any]) -> bytes:
    """A worker's manifest; ``files`` have ``size`` and ``sha256`` by path within the checkpoint."""
    manifest = {"rank": rank, "world_size": world_size, "step": step, "files": files}
    return json.dumps(manifest | {"sha256": _seal(manifest)}, indent=1).encode()


def is_complete(filesystem: fs.FileSystem, folder: str, files: Mapping[str, int]) -> bool:
    """Whether the manifests of all workers are there; what they say is not looked at."""
    manifests = [one for one in files if _is_manifest(one)]
    if not manifests:
        return False
    try:
        manifest = json.loads(read_bytes(filesystem, f"{folder}/{manifests[0]}"))
        return len(manifests) >= int(manifest["world_size"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def find_faults(filesystem: fs.FileSystem, folder: str, files: Mapping[str, int]) -> tuple[list[str], bool]:
    """What is wrong with a checkpoint, all of which is read, and whether it is whole: all workers were done.

    A checkpoint that is not whole and has no faults was never finished. ``files`` are the sizes of what is there.

    Raises:
        OSError: storage elsewhere does not answer, which says nothing about what lies there.
    """
    faults: list[str] = []
    manifests = []
    for file in sorted(one for one in files if _is_manifest(one)):
        try:
            manifest = json.loads(read_bytes(filesystem, f"{folder}/{file}"))
            seal = manifest.pop("sha256")
            if seal != _seal(manifest):
                raise ValueError("its own checksum is wrong")
            manifests.append(manifest)
        except (OSError, ValueError, KeyError, AttributeError) as error:
            _refuse_silence(filesystem, error)
            faults.append(f"{file} cannot be read ({error})")
    agreed = {(manifest["world_size"], manifest["step"]) for manifest in manifests}
    if len(agreed) > 1:
        faults.append("its workers' manifests are of different steps or numbers of workers")
    if faults or not manifests:
        return faults, False
    world_size = manifests[0]["world_size"]
    if sorted(manifest["rank"] for manifest in manifests) != list(range(world_size)):
        return [], False
    expected = {file: about for manifest in manifests for file, about in manifest["files"].items()}
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(
            lambda one: _fault(filesystem, f"{folder}/{one}", one, expected[one], files.get(one)), expected
        )
        return [fault for fault in found if fault], True


def hash_and_copy(source: BinaryIO, sink: BinaryIO | None = None) -> str:
    """SHA-256 of a stream that is copied on the way."""
    digest = hashlib.sha256()
    while chunk := source.read(CHUNK_BYTES):
        digest.update(chunk)
        if sink is not None:
            sink.write(chunk)
    return digest.hexdigest()


def _fault(filesystem: fs.FileSystem, path: str, file: str, about: Mapping[str, Any], size: int | None) -> str | None:
    if size is None:
        return f"{file} is missing"
    if size != about["size"]:
        return f"{file} has {size} bytes, it was written with {about['size']}"
    try:
        with filesystem.open_input_stream(path) as stream:
            digest = hash_and_copy(stream)
    except OSError as error:
        _refuse_silence(filesystem, error)
        return f"{file} cannot be read ({error})"
    return None if digest == about["sha256"] else f"{file} has changed since it was written (SHA-256)"


def _refuse_silence(filesystem: fs.FileSystem, error: Exception) -> None:
    """A file that cannot be read is damaged on a disk of this machine; over a network it may be whole."""
    if isinstance(error, OSError) and not is_local(filesystem):
        raise error


def _seal(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _is_manifest(file: str) -> bool:
    return file.startswith("manifest-") and file.endswith(".json")
