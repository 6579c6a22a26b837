"""What a stage may ask of its surroundings: who am I among the workers, and sum or gather over them.

The loop is written against `RunContext` and runs the same in one process (`LocalContext`) and under any launcher that
has set up torch.distributed (`ProcessGroupContext`, which the Ray Train context extends).
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from enum import IntEnum
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor


class Call(IntEnum):
    """What a run hears from outside; the first worker hears it for all, and they answer at the end of the same step."""

    NOTHING = 0
    LOOK = 1
    """Ask all together whether a node is about to be taken away."""
    SAVE = 2
    """Write a checkpoint."""
    STOP = 3
    """Write a checkpoint and stop."""


class RunContext(Protocol):
    """One worker's view of a run."""

    rank: int
    world_size: int
    device: torch.device

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """The sum of ``values`` over workers, same shape."""
        ...

    def all_gather_object(self, value: Any) -> list[Any]:
        """Every worker's ``value``, in the order of ranks."""
        ...

    def building(self) -> AbstractContextManager[None]:
        """What models are built and loaded under: an engine that partitions weights does so while they come to be."""
        ...

    def report(self, metrics: dict[str, Any], checkpoint: Path | None) -> None:
        """Hand validation metrics, and perhaps this worker's part of a checkpoint, to whoever started the run."""
        ...

    def call(self) -> Call:
        """What this worker hears now; only the first worker ever hears something."""
        ...

    def is_leaving(self) -> bool:
        """Whether a node of the run is about to be taken away, told once; every worker must ask."""
        ...


class LocalContext:
    """One process alone."""

    rank = 0
    world_size = 1

    def __init__(self, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self._is_asked_to_stop = False

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """One worker's sum is its own value."""
        return values

    def all_gather_object(self, value: Any) -> list[Any]:
        """One worker's value, as a list."""
        return [value]

    def building(self) -> AbstractContextManager[None]:
        """One process holds all of a model."""
        return nullcontext()

    def report(self, metrics: dict[str, Any], checkpoint: Path | None) -> None:
        """Nobody to tell: the loop keeps checkpoints of a local run itself."""

    def stop(self) -> None:
        """Let the run stop after its present step."""
        self._is_asked_to_stop = True

    def call(self) -> Call:
        """Whether `stop` was called."""
        return Call.STOP if self._is_asked_to_stop else Call.NOTHING

    def is_leaving(self) -> bool:
        """This machine stays."""
        return False


class ProcessGroupContext:
    """A worker of an initialised torch.distributed process group."""

    def __init__(
        self, device: torch.device, building: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        """``building`` is what the run's engine wants models to be built under."""
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()
        self.device = device
        self.building = building

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """Sum over workers in the precision of ``values``; the argument is left as it is."""
        total = values.clone()
        dist.all_reduce(total, op=dist.ReduceOp.SUM)
        return total

    def all_gather_object(self, value: Any) -> list[Any]:
        """Gather picklable values; for small things and for the ends of a validation."""
        gathered: list[Any] = [None] * self.world_size
        dist.all_gather_object(gathered, value)
        return gathered

    def report(self, metrics: dict[str, Any], checkpoint: Path | None) -> None:
        """Without a launcher there is nobody to tell."""

    def call(self) -> Call:
        """Without a launcher nobody calls."""
        return Call.NOTHING

    def is_leaving(self) -> bool:
        """Without a launcher nobody knows."""
        return False
