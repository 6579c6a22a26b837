"""What a run is resumed from, and how one can tell that it is whole.

A run's checkpoints are folders ``step-<step>-<time>`` in its storage. Every worker writes the files of its engine
there, ``part-<rank>.json`` (`Part`: where the run was) and, when all of them have arrived, ``manifest-<rank>.json``
with the size and SHA-256 of each. A checkpoint counts when the manifests of all its workers are there; it is used when
what they say is true. Which windows and text a step reads, its learning rate and its dropout follow from the step's
number (`neurolm.eeg.order`, `neurolm.training.randomness`), so no more than this is state.

The module imports neither torch nor Ray: the process that starts workers chooses a checkpoint by it.
"""

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pyarrow import fs

from neurolm.training.checkpoint_manifest import find_faults, hash_and_copy, is_complete, sealed_manifest
from neurolm.training.full_disk import CheckpointError, clear_about_space
from neurolm.training.storage import (
    CHUNK_BYTES,
    file_names,
    folder_names,
    is_local,
    local_folder,
    open_storage,
    read_bytes,
    write_bytes,
)

logger = logging.getLogger(__name__)

DAMAGED = "damaged.json"
"""Put into a checkpoint that was found damaged: what is wrong with it. Delete it to have the checkpoint looked at."""
CHOSEN = "resume_from.json"
"""Which checkpoint the workers that are being started resume from."""
RETRY_AFTER_S = (1.0, 4.0)
"""Waits before a failed upload of a file is tried again."""


@dataclass(frozen=True)
class Part:
    """Where a run was, as each of its workers knew it."""

    rank: int
    world_size: int
    step: int
    """Completed steps, those without an update included; the next one's windows and rate follow from it."""
    made_from: dict[str, str]
    """Digests of settings, data and earlier model."""
    best: dict[str, float]
    """Metrics of the weights in the run's model folder."""
    history: dict[str, Any] = field(default_factory=dict)
    """What a person should know of the run's past: steps that were left out, settings that were changed, how well it
    knew the language before its first step."""

    def write(self, folder: Path) -> None:
        """Put it beside the engine's files."""
        (folder / f"part-{self.rank}.json").write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, folder: Path, rank: int = 0) -> "Part":
        """Of a checkpoint that was found whole."""
        return cls(**json.loads((folder / f"part-{rank}.json").read_text()))


@dataclass(frozen=True)
class Choice:
    """What a run resumes from, and what it did not because it was damaged."""

    name: str | None = None
    """Folder of the checkpoint; None: the run starts at its beginning."""
    step: int = 0
    damaged: dict[str, list[str]] = field(default_factory=dict)
    """What was newly found wrong, by checkpoint."""
    error: str | None = None
    """Why the run cannot go on."""

    @property
    def warning(self) -> str | None:
        """The damage in words; None where there is none."""
        if not self.damaged:
            return None
        said = "; ".join(f"{name}: {', '.join(faults)}" for name, faults in self.damaged.items())
        return f"damaged checkpoint left out ({said}); the run resumes at step {self.step}"


class RunCheckpoints:
    """The checkpoints of one run: written, kept, proved and found again."""

    def __init__(self, storage: str, run: str, keep: int = 2) -> None:
        self.filesystem, self.root = open_storage(storage)
        self.path = f"{self.root}/{run}"
        self.part_bytes: int | None = None
        """Of this worker's files of the last checkpoint; None before the first."""
        self._keep = keep

    def scratch(self, step: int, rank: int) -> Path:
        """An empty folder of this machine for a worker's files: in the storage, where moving them costs nothing."""
        if not is_local(self.filesystem):
            return Path(tempfile.mkdtemp(prefix="neurolm-checkpoint-"))
        folder = Path(self.path) / f"writing-{step:08d}-{rank}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def new_name(self, step: int) -> str:
        """A name that no other checkpoint has, in the order of steps and then of time."""
        return f"step-{step:08d}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"

    def commit(self, scratch: Path, name: str) -> str:
        """Bring a worker's files to checkpoint ``name``, its manifest last; returns the checkpoint's path.

        Raises:
            CheckpointError: the disk is full or the storage does not answer; nothing is left in ``scratch``.
        """
        (part_file,) = scratch.glob("part-*.json")
        part = json.loads(part_file.read_text())
        target = f"{self.path}/{name}"
        files = sorted(path for path in scratch.rglob("*") if path.is_file())
        self.part_bytes = sum(path.stat().st_size for path in files)
        try:
            with clear_about_space(f"checkpoint {target}", Path(self.path), self.part_bytes):
                sums = {file.relative_to(scratch).as_posix(): self._bring(file, scratch, target) for file in files}
                sealed = sealed_manifest(part["rank"], part["world_size"], part["step"], sums)
                path = f"{target}/manifest-{part['rank']}.json"
                self._patiently(lambda: write_bytes(self.filesystem, path, sealed), path)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if is_complete(self.filesystem, target, file_names(self.filesystem, target)):  # the last worker clears up
            self.prune()
        return target

    def choose(self) -> Choice:
        """The newest whole checkpoint. Those that are newer and damaged are marked, and the choice names them.

        What a killed process was writing is cleared away, so nobody else may be writing.

        Raises:
            CheckpointError: there are checkpoints, but every one of them is damaged, or the storage does not answer.
        """
        try:
            return self._choose()
        except OSError as error:
            raise CheckpointError(
                f"{self.path}: the checkpoints cannot be read ({error}); see that the storage can be reached"
            ) from error

    def _choose(self) -> Choice:
        damaged: dict[str, list[str]] = {}
        marked: list[str] = []
        for name in folder_names(self.filesystem, self.path):
            if name.startswith("writing-"):
                self.filesystem.delete_dir(f"{self.path}/{name}")
        for name in self._names():
            files = file_names(self.filesystem, f"{self.path}/{name}")
            if DAMAGED in files:
                marked.append(name)
                continue
            faults, is_whole = find_faults(self.filesystem, f"{self.path}/{name}", files)
            if faults:
                logger.error("%s/%s is damaged: %s", self.path, name, "; ".join(faults))
                damaged[name] = faults
                self._mark(name, faults)
            elif not is_whole:
                logger.warning("%s/%s was never finished and does not count", self.path, name)
            else:
                return Choice(name, _step_of(name), damaged)
        if damaged or marked:
            found = [f"{name} ({'; '.join(faults)})" for name, faults in damaged.items()]
            found += [f"{name} (found damaged before, see its {DAMAGED})" for name in marked]
            raise CheckpointError(
                f"{self.path}: no checkpoint here is whole: {', '.join(found)}. Copy a whole one back, or delete the "
                "folder to train from the beginning"
            )
        return Choice()

    def newest_step(self) -> int:
        """Of the newest checkpoint that counts, without a look at what is in its files; 0: there is none."""
        return next((_step_of(name) for name in self._names() if self._counts(name)), 0)

    def choose_for_workers(self) -> Choice:
        """Choose, and leave the choice for the workers; called before they start.

        An error is part of the choice: where this is called, nobody could do anything about it. Where the choice cannot
        be left, an older one must not be taken for it.
        """
        try:
            choice = self.choose()
        except CheckpointError as error:
            choice = Choice(error=str(error))
        try:
            self.forget(CHOSEN)
            self.filesystem.create_dir(self.path, recursive=True)
            write_bytes(self.filesystem, f"{self.path}/{CHOSEN}", json.dumps(asdict(choice)).encode())
        except OSError as error:
            logger.error("%s: cannot be written: %s", self.path, error)
        return choice

    def chosen(self) -> Choice:
        """What `choose_for_workers` left. Raises CheckpointError."""
        try:
            choice = Choice(**json.loads(read_bytes(self.filesystem, f"{self.path}/{CHOSEN}")))
        except OSError as error:
            raise CheckpointError(
                f"{self.path}/{CHOSEN}: cannot be read ({error}); see that the storage can be reached and has room"
            ) from error
        if choice.error is not None:
            raise CheckpointError(choice.error)
        return choice

    @contextmanager
    def opened(self, choice: Choice) -> Iterator[Path | None]:
        """The chosen checkpoint as a folder of this machine; None where there is none."""
        if choice.name is None:
            yield None
            return
        with local_folder(self.filesystem, f"{self.path}/{choice.name}") as folder:
            yield folder

    def forget(self, file: str) -> None:
        """Delete a file beside the checkpoints that somebody else keeps there."""
        path = f"{self.path}/{file}"
        if self.filesystem.get_file_info(path).type == fs.FileType.File:
            self.filesystem.delete_file(path)

    def publish_model(self, folder: Path) -> None:
        """Keep a model folder beside the checkpoints where those are not on this machine. Raises OSError."""
        if is_local(self.filesystem):
            return
        target = f"{self.path}/model"
        self.filesystem.create_dir(target, recursive=True)
        self.filesystem.delete_dir_contents(target)
        for file in sorted(folder.iterdir(), key=lambda file: file.name == "manifest.json"):  # which makes it count
            self._bring(file, folder, target)

    def fetch_model(self, folder: Path) -> None:
        """Bring back what `publish_model` kept to where it is missing. Raises OSError."""
        target = f"{self.path}/model"
        if is_local(self.filesystem) or "manifest.json" not in file_names(self.filesystem, target):
            return
        folder.mkdir(parents=True)
        fs.copy_files(target, str(folder), source_filesystem=self.filesystem, chunk_size=CHUNK_BYTES)

    def prune(self) -> None:
        """Delete all but the newest that count, and what is older than those and does not count.

        Checkpoints that were found damaged count no longer. A failure to delete costs a warning.
        """
        num_complete = 0
        for name in self._names():
            if num_complete >= self._keep:
                self._delete(name)
            elif self._counts(name):
                num_complete += 1

    def clear(self) -> None:
        """Delete all checkpoints of a run that nobody will resume; its model stays. A failure costs a warning."""
        for name in self._names():
            self._delete(name)

    def _delete(self, name: str) -> None:
        try:
            self.filesystem.delete_dir(f"{self.path}/{name}")
        except FileNotFoundError:
            pass  # two workers were last
        except OSError as error:
            logger.warning("%s/%s is no longer needed and cannot be deleted: %s", self.path, name, error)

    def _counts(self, name: str) -> bool:
        """Whether all workers finished a checkpoint and nobody has found it damaged."""
        files = file_names(self.filesystem, f"{self.path}/{name}")
        return DAMAGED not in files and is_complete(self.filesystem, f"{self.path}/{name}", files)

    def _names(self) -> list[str]:
        """Checkpoints, the newest first."""
        names = folder_names(self.filesystem, self.path)
        return sorted((name for name in names if name.startswith("step-")), reverse=True)

    def _mark(self, name: str, faults: list[str]) -> None:
        try:
            write_bytes(self.filesystem, f"{self.path}/{name}/{DAMAGED}", json.dumps(faults, indent=1).encode())
        except OSError as error:
            logger.warning("%s/%s cannot be marked as damaged: %s", self.path, name, error)

    def _bring(self, file: Path, scratch: Path, target: str) -> dict[str, Any]:
        """Move or upload a file; its size and SHA-256, computed on the way."""
        path = f"{target}/{file.relative_to(scratch).as_posix()}"
        size = file.stat().st_size

        def move() -> str:
            self.filesystem.create_dir(path.rpartition("/")[0], recursive=True)
            with file.open("rb") as source:
                if not is_local(self.filesystem):
                    with self.filesystem.open_output_stream(path) as sink:
                        return hash_and_copy(source, sink)
                digest = hash_and_copy(source)
            file.replace(path)
            return digest

        return {"size": size, "sha256": self._patiently(move, path)}

    def _patiently(self, write: Callable[[], Any], path: str) -> Any:
        """Try again what a network may have failed."""
        for wait_s in RETRY_AFTER_S:
            try:
                return write()
            except OSError as error:
                if is_local(self.filesystem):
                    raise
                logger.warning("%s: %s; it is tried again in %g s", path, error, wait_s)
                time.sleep(wait_s)
        return write()


def _step_of(name: str) -> int:
    return int(name.split("-")[1])
