"""The training state of a checkpoint: master weights, Adam's moments, buffers; the same for every engine.

Every worker writes one safetensors file, ``state-00000-of-00002.safetensors``, of the pieces that it owns: flat runs of
elements, whose place in which tensor the file's metadata says, as JSON. Nothing else is needed to read a piece, nothing
is pickled, and no file can contradict another unnoticed. A reader takes the elements it wants from whichever files
have them, so that any engine on any number of workers continues from any checkpoint, and no worker ever holds more
than what it owns.

Frozen weights are in it too, written once: a checkpoint is whole by itself, at the price of the frozen encoder (2 % of
NeuroLM-XL's state) or, under LoRA, of the model that the adapters sit on.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neurolm.config import UserError
from neurolm.training.pieces import Piece
from neurolm.training.tensor_file import TensorFile, TensorFileWriter, TensorSpec, TensorStream, holds

FORMAT = "neurolm training state 1"
METADATA = "neurolm"


class TrainingStateError(UserError):
    """A training state that is not whole, or that is another model's."""


def write_state(folder: Path, pieces: Iterable[Piece], *, step_count: int, rank: int, world_size: int) -> None:
    """Write this worker's file of a training state; every worker calls it with the folder of one checkpoint."""
    owned = {piece.key: piece for piece in pieces if piece.values.numel() and (rank == 0 or not piece.is_replicated)}
    about = {
        "format": FORMAT,
        "step_count": step_count,
        "world_size": world_size,
        "pieces": {
            key: {"start": one.start, "shape": one.shape, "adam_steps": one.adam_steps, "aliases": one.aliases}
            for key, one in owned.items()
        },
    }
    specs = {key: TensorSpec.of(piece.values) for key, piece in owned.items()}
    path = folder / f"state-{rank:05d}-of-{world_size:05d}.safetensors"
    with TensorFileWriter(path, specs, {METADATA: json.dumps(about)}) as writer:
        for key, piece in owned.items():
            writer.write(key, piece.values)


@dataclass(frozen=True)
class _Run:
    """Where some elements of a tensor lie."""

    start: int
    stop: int
    file: TensorFile


class TrainingState:
    """A training state on disk; what is asked of it is read from the files that hold it."""

    def __init__(self, folder: Path) -> None:
        """Read what the files say of themselves, and nothing else.

        Raises:
            TrainingStateError: a file is missing or damaged, or together they are not every element exactly once.
        """
        self.folder = folder
        paths = sorted(folder.glob("state-*-of-*.safetensors"))
        if not paths:
            raise TrainingStateError(f"{folder}: no training state here (state-*.safetensors are missing)")
        abouts = [self._open(path) for path in paths]
        world_size = abouts[0][1]["world_size"]
        expected = {f"state-{rank:05d}-of-{world_size:05d}.safetensors" for rank in range(world_size)}
        names = {path.name for path in paths}
        if names != expected:
            raise TrainingStateError(
                f"{folder}: expected the files of {world_size} workers; {_differences(expected, names)}"
            )
        counts = {about["step_count"] for _, about in abouts}
        if len(counts) > 1:
            raise TrainingStateError(f"{folder}: files of different steps: {', '.join(map(str, sorted(counts)))}")
        self.step_count: int = counts.pop()
        self.specs: dict[str, TensorSpec] = {}
        """Dtypes and whole shapes by kind and name, as in ``weight.head.bias``."""
        self.adam_steps: dict[str, int] = {}
        """Updates that each parameter's moments have seen."""
        self._aliases: dict[str, list[str]] = {}
        self._runs: dict[str, list[_Run]] = {}
        for file, about in abouts:
            self._add(file, about["pieces"])
        for key, runs in self._runs.items():
            self._refuse_gaps(key, sorted(runs, key=lambda run: run.start))

    def read(self, pieces: Iterable[Piece]) -> None:
        """Fill what a worker holds; ``pieces`` are of all tensors of its model, also where it holds no element.

        Raises:
            TrainingStateError: the model has other names, shapes or dtypes than the state.
        """
        wanted = {piece.key: piece for piece in pieces if math.prod(piece.shape)}
        if absent := sorted(wanted.keys() - self.specs.keys()):
            raise TrainingStateError(f"{self.folder}: has no {_listed(absent)}, which this model needs")
        if surplus := sorted(self.specs.keys() - wanted.keys()):
            raise TrainingStateError(f"{self.folder}: has {_listed(surplus)}, which this model has not")
        for key, piece in wanted.items():
            found, dtype = self.specs[key], piece.values.dtype
            if found.shape != piece.shape:
                raise TrainingStateError(
                    f"{self.folder}: {key} is {list(found.shape)}, this model's is {list(piece.shape)}"
                )
            if not holds(dtype, found.dtype):
                raise TrainingStateError(
                    f"{self.folder}: {key} is {found.dtype}, this engine keeps {dtype} and would round it; resume with "
                    "the precision that the checkpoint was made with"
                )
        for key, piece in wanted.items():
            self._read_into(piece.values, key, piece.start)

    def weights(self) -> TensorStream:
        """Whole weights and buffers under all their names, assembled one at a time."""
        keys = [key for key in self.specs if key.startswith("weight.")]
        names = {key: [_name(key), *self._aliases[key]] for key in keys}

        def assembled() -> Iterator[tuple[str, Tensor]]:
            for key in keys:
                tensor = self.tensor(key)
                for name in names[key]:
                    yield name, tensor

        return TensorStream({name: self.specs[key] for key in keys for name in names[key]}, assembled())

    def tensor(self, key: str) -> Tensor:
        """One whole tensor of `specs`."""
        spec = self.specs[key]
        tensor = torch.empty(spec.shape, dtype=spec.dtype)
        self._read_into(tensor.view(-1), key, 0)
        return tensor

    def _read_into(self, values: Tensor, key: str, start: int) -> None:
        stop = start + len(values)
        for run in self._runs[key]:
            first, last = max(start, run.start), min(stop, run.stop)
            if first < last:
                run.file.read_into(values[first - start : last - start], key, first - run.start)

    def _open(self, path: Path) -> tuple[TensorFile, dict[str, Any]]:
        file = TensorFile(path)
        about: dict[str, Any] = json.loads(file.metadata.get(METADATA, "{}"))
        if about.get("format") != FORMAT:
            raise TrainingStateError(f"{path}: expected {FORMAT!r}, found {about.get('format')!r}")
        if about["pieces"].keys() != file.keys():
            raise TrainingStateError(f"{path}: what it says of its tensors is not about those that it has")
        return file, about

    def _add(self, file: TensorFile, pieces: Mapping[str, dict[str, Any]]) -> None:
        for key, piece in pieces.items():
            spec = TensorSpec(file.specs[key].dtype, tuple(piece["shape"]))
            other = self.specs.setdefault(key, spec)
            if other != spec:
                raise TrainingStateError(f"{file.path}: {key} is {spec}, in another file {other}")
            self._aliases[key] = piece["aliases"]
            if not key.startswith("weight."):
                steps = self.adam_steps.setdefault(_name(key), piece["adam_steps"])
                if steps != piece["adam_steps"]:
                    raise TrainingStateError(
                        f"{file.path}: {key} has seen {piece['adam_steps']} updates, elsewhere {steps}"
                    )
            run = _Run(piece["start"], piece["start"] + file.specs[key].num_elements, file)
            self._runs.setdefault(key, []).append(run)

    def _refuse_gaps(self, key: str, runs: list[_Run]) -> None:
        """Raise TrainingStateError unless the runs are every element exactly once."""
        end = 0
        for run in runs:
            if run.start > end:
                raise TrainingStateError(f"{self.folder}: elements {end} to {run.start - 1} of {key} are in no file")
            if run.start < end:
                raise TrainingStateError(
                    f"{self.folder}: elements {run.start} to {min(end, run.stop) - 1} of {key} are in two files, one "
                    f"of them {run.file.path.name}"
                )
            end = run.stop
        size = math.prod(self.specs[key].shape)
        if end != size:
            raise TrainingStateError(
                f"{self.folder}: {key} should have {size} elements, its pieces end at {end}; files of another run?"
            )


def _name(key: str) -> str:
    return key.partition(".")[2]


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def _differences(expected: set[str], found: set[str]) -> str:
    parts = {"missing": sorted(expected - found), "surplus": sorted(found - expected)}
    return "; ".join(f"{what}: {_listed(names)}" for what, names in parts.items() if names)
