"""Looks for the ways in which a run fits: how its state is divided, and how large a micro-batch may be."""

import bisect
import math
from dataclasses import dataclass

import torch

from neurolm.planning.memory import Division, Memory, NumberFormat, Offload, Sizes, divisions, memory, traffic
from neurolm.planning.stages import PlannedStage
from neurolm.planning.trace import Tracer
from neurolm.planning.windows import PlannedWindows
from neurolm.training.deepspeed_config import DeepSpeedEngineConfig
from neurolm.training.training_run import TrainingRun

CONTEXT_BYTES = 10**9
"""What CUDA, NCCL and the libraries take on a GPU before the first tensor; not measured here."""
USABLE = 0.92
"""Part of the rest that tensors can have; the allocator's gaps take what is left. Not measured here."""


@dataclass(frozen=True)
class Option:
    """One way of dividing a run, with the largest micro-batch that fits (or 1, where none does)."""

    division: Division
    micro_size: int
    num_micro_batches: int
    memory: Memory
    fits: bool
    traffic_bytes: int
    """What each GPU sends in a step."""
    flop_per_step: float
    """Of all GPUs together, with what checkpointing computes again."""


class Search:
    """The options of a run on so many equal GPUs."""

    def __init__(
        self,
        run: TrainingRun,
        planned: PlannedStage,
        sizes: Sizes,
        windows: PlannedWindows,
        numbers: NumberFormat,
        *,
        num_gpus: int,
        gpu_memory_gb: float,
    ) -> None:
        self.run, self.num_gpus = run, num_gpus
        self.usable_bytes = max(0, int(USABLE * (gpu_memory_gb * 1e9 - CONTEXT_BYTES)))
        self._sizes, self._windows, self._numbers = sizes, windows, numbers
        weight_dtype = torch.float32 if numbers.weight == 4 else torch.bfloat16
        self._tracer = Tracer(planned.stage, planned.tasks, weight_dtype)
        self._engine = run.engine if isinstance(run.engine, DeepSpeedEngineConfig) else DeepSpeedEngineConfig()
        self._can_offload = numbers.moments == 8  # bfloat16 states cannot be, see DeepSpeedEngineConfig

    def options(self) -> list[Option]:
        """Every division, in order of preference."""
        return [self._largest(division) for division in divisions(self.num_gpus, self._can_offload)]

    def configured(self) -> Option:
        """The run as its file says."""
        if not isinstance(self.run.engine, DeepSpeedEngineConfig):
            division = Division(0, self.run.activation_checkpointing)
        else:
            engine = self.run.engine
            offload: Offload = "none" if engine.offload_optimizer == "none" else "optimizer"
            if engine.offload_parameters != "none":
                offload = "all"
            division = Division(engine.zero_stage, self.run.activation_checkpointing, offload)
        return self.at(division, self.run.batch.micro_size or self.run.batch.size)

    def recommend(self, options: list[Option]) -> Option | None:
        """The first that fits the config's own micro-batch, else the first that fits at all; without detours before."""
        wanted = self._micro_size(self.run.batch.micro_size or self.run.batch.size, self.num_gpus)[0]
        fitting = [option for option in options if option.fits]
        for is_plain in (True, False):
            several = [option for option in fitting if option.division.is_plain == is_plain]
            for option in [*(one for one in several if one.micro_size >= wanted), *several]:
                return option
        return None

    def at(self, division: Division, micro_size: int, num_gpus: int | None = None) -> Option:
        """A division with micro-batches of about this size, dealt evenly as in training."""
        num_gpus = num_gpus or self.num_gpus
        micro_size, number = self._micro_size(micro_size, num_gpus)
        batch = self.run.batch
        crops = math.ceil(math.ceil(batch.num_crops / num_gpus) / number)
        trace = self._tracer(self._windows.largest, micro_size, crops, batch.text_length, division.checkpointing)
        needed = memory(
            self._sizes,
            division,
            self._numbers,
            trace,
            num_gpus=num_gpus,
            num_micro_batches=number,
            bucket=self._engine.reduce_bucket_size,
            overlap=self._engine.overlap_communication,
            live=self._live_parameters,
            update_at_once=self._engine.sub_group_size,
        )
        return Option(
            division=division,
            micro_size=micro_size,
            num_micro_batches=number,
            memory=needed,
            fits=needed.total <= self.usable_bytes,
            traffic_bytes=traffic(self._sizes, division, self._numbers, num_gpus=num_gpus, num_micro_batches=number),
            flop_per_step=self.flop(division.checkpointing),
        )

    @property
    def _live_parameters(self) -> int:
        """Elements of gathered weights that ZeRO-3 holds at a time.

        What the backward pass of text, or of windows of one shape, gathers waits until the others' have used it.
        """
        num_passes = len(self._windows.shares) + bool(self.run.batch.text_size)
        return self._sizes.trainable if num_passes > 1 else self._engine.max_live_parameters

    def flop(self, checkpointing: bool) -> float:
        """Operations of a whole step of the global batch: every window by its shape, and the text."""
        batch = self.run.batch
        total = sum(
            share * batch.size * self._tracer(shape, 1, 0, batch.text_length, checkpointing).flop
            for shape, share in self._windows.shares.items()
        )
        if batch.num_crops:
            total += batch.num_crops * self._tracer(None, 0, 1, batch.text_length, checkpointing).flop
        return total

    def what_would_fit(self, options: list[Option]) -> str:
        """Why nothing fits and what would, in words."""
        least = min(options, key=lambda option: option.memory.total)
        gigabytes = math.ceil((least.memory.total / USABLE + CONTEXT_BYTES) / 1e9)
        would = [f"GPUs of {gigabytes} GB ({least.division})"]
        for num_gpus in (self.num_gpus * factor for factor in (2, 4, 8, 16)):
            fitting = [one for one in divisions(num_gpus, self._can_offload) if self.at(one, 1, num_gpus).fits]
            if fitting and 2 * num_gpus <= self.run.batch.size:
                would.append(f"{num_gpus} GPUs of this size ({fitting[0]})")
                break
        if self.run.batch.num_crops:
            would.append("perhaps batch.text_size=0, as gradients of text and EEG wait for each other")
        usable, needed = self.usable_bytes / 1e9, least.memory.total / 1e9
        return (
            f"does not fit on {self.num_gpus} GPUs with {usable:.1f} GB each for tensors, however it is divided; the "
            f"least is {needed:.1f} GB ({least.division}, one window at a time). What would: {'; '.join(would)}"
        )

    def _largest(self, division: Division) -> Option:
        """The largest micro-batch that fits, of the config's own and halves, quarters, ... of a worker's share."""
        share = math.ceil(self.run.batch.size / self.num_gpus)
        sizes = {math.ceil(share / 2**power) for power in range(share.bit_length() + 1)}
        candidates = sorted(sizes | {self._micro_size(self.run.batch.micro_size or share, self.num_gpus)[0]})
        num_fitting = bisect.bisect(candidates, False, key=lambda size: not self.at(division, size).fits)
        return self.at(division, candidates[max(num_fitting - 1, 0)])

    def _micro_size(self, micro_size: int, num_gpus: int) -> tuple[int, int]:
        """Windows in the largest micro-batch, and micro-batches, of a setting of ``batch.micro_size``."""
        share = math.ceil(self.run.batch.size / num_gpus)
        number = math.ceil(share / min(micro_size, share))
        return math.ceil(share / number), number
