"""One of two DeepSpeed workers that meet a window with a NaN, without Ray: ``RANK FOLDER``; writes what it saw."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from neurolm.distributed.deepspeed import DeepSpeedEngine
from neurolm.eeg.reading import StepWindows
from neurolm.tracking import NullTracker
from neurolm.training.batches import BatchConfig, Batcher, StepBatch
from neurolm.training.context import ProcessGroupContext
from neurolm.training.engine import DeepSpeedEngineConfig, DivergedError
from neurolm.training.flops import BatchFlops
from neurolm.training.loop import Schedule, fit
from neurolm.training.not_finite import NotFiniteConfig, NotFiniteGuard
from neurolm.training.optimizer import OptimizerConfig
from neurolm.training.pretrain import PretrainLossConfig, PretrainStage
from neurolm.training.profiling import StepProfiler
from neurolm.training.stage import Stage
from neurolm.training.throughput import Throughput
from tests.tiny import stored_window, tiny_neurolm

SHARES = ((0, 1, 2, 3), (4, 5, 6))


class Infinite(PretrainStage):
    """At step 3 the loss is infinite and its gradient is not."""

    step = 0

    def before_step(self, step: int, total_steps: int) -> None:
        self.step = step

    def loss_shares(self, batch: Any, totals: dict[str, float]) -> dict[str, torch.Tensor]:
        shares = super().loss_shares(batch, totals)
        return shares if self.step != 3 else {**shares, "loss": shares["loss"] + float("inf")}


def step_batch(step: int, context: ProcessGroupContext) -> StepBatch:
    """This worker's share of seven windows; at step 1 a window of the second worker holds a NaN."""
    windows = [stored_window(seed=seed) for seed in range(7)]  # of one shape: ZeRO-3 wants workers to call alike
    if step == 1:
        windows[5].signal[0, 17] = np.nan
    share = SHARES[context.rank]
    batcher = Batcher(
        BatchConfig(size=8, micro_size=2), corpus=None, tasks=None, seed=0, rank=context.rank, world_size=2
    )
    return batcher(StepWindows(step, [windows[place] for place in share], np.array(share)))


def weights(engine: DeepSpeedEngine) -> torch.Tensor:
    whole = [dict(engine.weights().tensors)]  # the first worker's
    dist.broadcast_object_list(whole)
    (named,) = whole
    return torch.cat([named[name].flatten().double() for name in sorted(named) if named[name].is_floating_point()])


def train(zero_stage: int, clip_norm: float | None, context: ProcessGroupContext, folder: Path) -> dict[str, Any]:
    torch.manual_seed(0)
    stage: Stage = Infinite(tiny_neurolm(), PretrainLossConfig())
    optimizer = OptimizerConfig(learning_rate=1e-2, warmup_ratio=0, clip_norm=clip_norm)
    settings = DeepSpeedEngineConfig(zero_stage=zero_stage)  # type: ignore[arg-type]
    throughput = Throughput(BatchFlops(stage), context, peak_flops=None)
    engine = DeepSpeedEngine(stage, optimizer, 5, context, settings, num_micro_batches=2)
    seen: dict[str, Any] = {}
    before = weights(engine)

    def advance(total: int, policy: str) -> None:
        guard = NotFiniteGuard(NotFiniteConfig(policy=policy), stage, engine, context, NullTracker(), folder)  # type: ignore[arg-type]
        fit(
            stage, engine, (step_batch(step, context) for step in range(engine.step_count, total)), context,
            NullTracker(), Schedule(total, validations=1), validate=lambda _: {}, save=lambda *_: None,
            after_validation=lambda *_: None, guard=guard, throughput=throughput,
            profiler=StepProfiler(None, folder, context.device),
        )  # fmt: skip

    def moved() -> bool:
        nonlocal before
        now = weights(engine)
        assert torch.isfinite(now).all()
        different, before = not torch.equal(now, before), now
        return different

    advance(1, "stop")
    seen["first step moves"] = moved()
    try:
        advance(2, "stop")
    except DivergedError as error:
        seen["error"] = str(error)
    seen["stopped step moves"] = moved()
    seen["steps"] = engine.step_count
    advance(2, "skip")
    seen["skipped step moves"] = moved()
    advance(3, "skip")
    seen["next step moves"] = moved()
    advance(4, "skip")
    seen["infinite loss moves"] = moved()
    advance(5, "skip")
    seen["last step moves"] = moved()
    seen["sum"] = float(before.sum()) if context.rank == 0 or zero_stage < 3 else None
    return seen


if __name__ == "__main__":
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "DS_ACCELERATOR": "cpu"}
    dist.init_process_group("gloo", init_method=(folder / "meeting").as_uri(), rank=rank, world_size=2)
    context = ProcessGroupContext(torch.device("cpu"))
    cases = [(1, 1.0), (2, None), (3, 1.0)]
    found = {str(zero_stage): train(zero_stage, clip, context, folder) for zero_stage, clip in cases}
    (folder / f"seen-{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()
