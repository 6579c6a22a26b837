"""How fast a run works, by what passes between two of its records, and how much memory its workers took.

Everything a worker counts travels in the sum over workers that a step needs anyway, so nobody waits once more.
"""

import math
from collections.abc import Callable

import torch

from neurolm.resident_memory import peak_resident_bytes
from neurolm.sequences import Batch
from neurolm.training.batches import StepBatch
from neurolm.training.context import RunContext
from neurolm.training.nodes import Nodes

GIB = 2**30


class Throughput:
    """Rates of all workers together since the last record.

    Args:
        flops: counts the operations of a batch, as `BatchFlops` does; not a number: they are not told.
        context: of the worker.
        peak_flops: operations a second that one worker's device could do at most; None leaves out the share of it.
        nodes: what the nodes are busy with; None: not told.
    """

    def __init__(
        self, flops: Callable[[Batch], float], context: RunContext, peak_flops: float | None, nodes: Nodes | None = None
    ) -> None:
        self._flops, self._context, self._peak_flops, self._nodes = flops, context, peak_flops, nodes
        self._totals: dict[str, float] = {}
        self._seconds = 0.0
        self._latest: dict[str, float] = {}

    def counts(self, batch: StepBatch) -> dict[str, float]:
        """This worker's counts of a step, to be summed over workers: what losses divide by, and what is told here.

        Its memory stands under its own rank, the others' are 0, so the sum holds everybody's.
        """
        own: dict[str, float] = dict(batch.counts)
        own["flop"] = sum(self._flops(one) for one in batch.micro_batches)
        own["eeg_seconds"] = sum(len(group) * group.num_seconds for one in batch.micro_batches for group in one.groups)
        for name, used in peak_memory(self._context.device).items():
            own |= {f"{name}/worker-{rank:05d}": 0.0 for rank in range(self._context.world_size)}
            own[f"{name}/worker-{self._context.rank:05d}"] = used
        return own if self._nodes is None else own | self._nodes.values()

    def passed(self, totals: dict[str, float], seconds: float) -> None:
        """A step took so many seconds, waiting for data included, and these are its counts over all workers."""
        told = {name: value for name, value in totals.items() if name.startswith(("memory/", "system/"))}
        self._latest = {name: value for name, value in told.items() if math.isfinite(value)}
        for name in ("windows", "eeg_tokens", "text_tokens", "eeg_seconds", "flop"):
            self._totals[name] = self._totals.get(name, 0.0) + totals[name]
        self._seconds += seconds

    def metrics(self) -> dict[str, float]:
        """The rates since this was last asked, by name."""
        counted, seconds = self._totals, max(self._seconds, 1e-9)
        self._totals, self._seconds = {}, 0.0
        found = {
            "windows_per_second": counted["windows"] / seconds,
            "tokens_per_second": (counted["eeg_tokens"] + counted["text_tokens"]) / seconds,
            "eeg_hours_per_second": counted["eeg_seconds"] / 3600 / seconds,
        }
        if math.isfinite(counted["flop"]):
            found["flop_per_second"] = counted["flop"] / seconds
            if self._peak_flops is not None:
                found["mfu"] = found["flop_per_second"] / (self._peak_flops * self._context.world_size)
        return {f"throughput/{name}": value for name, value in found.items()} | self._latest


def peak_memory(device: torch.device) -> dict[str, float]:
    """The most that this process has held so far, in GiB: resident, and on a GPU what torch allocated."""
    found = {"memory/rss_gib": peak_resident_bytes() / GIB}
    if device.type == "cuda":
        found["memory/cuda_gib"] = torch.cuda.max_memory_allocated(device) / GIB
    return found
