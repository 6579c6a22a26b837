"""The only training loop; the three stages, the engines and the launchers plug into it.

Losses are shares of global means (see `neurolm.training.stage`), so the same numbers come out however a global batch is
cut into micro-batches and workers. A loss or gradient that is not finite changes no weight.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from neurolm.tracking import Tracker
from neurolm.training.batches import StepBatch
from neurolm.training.checkpoint_policy import CheckpointClock
from neurolm.training.context import Call, RunContext
from neurolm.training.engine import DivergedError, Engine
from neurolm.training.not_finite import NotFiniteGuard
from neurolm.training.profiling import StepProfiler
from neurolm.training.randomness import seed_step
from neurolm.training.stage import Stage
from neurolm.training.stopping import Stopped
from neurolm.training.throughput import Throughput


@dataclass(frozen=True)
class Schedule:
    """Which steps validate and save. Steps count from 0; a step is *due* when it has been completed."""

    total_steps: int
    validations: int
    """How often to validate, evenly spread, the last time at the end; a run of fewer steps validates after each."""
    checkpoint_steps: int | None = None
    """Steps between checkpoints; None: with every validation."""
    checkpoint_minutes: float | None = None
    """Minutes after which a checkpoint is due in any case; None: never."""
    log_every: int = 1
    seed: int = 0
    """Of what a step draws at random."""

    def validates(self, completed: int) -> bool:
        """Whether to validate after ``completed`` steps."""
        number = min(self.validations, self.total_steps)
        return completed * number // self.total_steps > (completed - 1) * number // self.total_steps

    def saves(self, completed: int) -> bool:
        """Whether to save a checkpoint after ``completed`` steps."""
        if self.checkpoint_steps is None:
            return self.validates(completed)
        return completed % self.checkpoint_steps == 0 or completed == self.total_steps


Save = Callable[[int, dict[str, float]], Path | None]
"""Writes this worker's checkpoint after so many steps, with the latest validation; returns its folder."""
Validate = Callable[[bool], dict[str, float]]
"""Validation metrics, equal on every worker; told whether it is the last validation of the run."""


@dataclass(frozen=True)
class _Heard:
    """What the first worker hears during a step."""

    call: Call = Call.NOTHING
    is_time: bool = False
    """Whether minutes have passed since the last checkpoint."""


def fit(
    stage: Stage,
    engine: Engine,
    batches: Iterator[StepBatch],
    context: RunContext,
    tracker: Tracker,
    schedule: Schedule,
    *,
    throughput: Throughput,
    profiler: StepProfiler,
    validate: Validate,
    save: Save,
    after_validation: Callable[[int, dict[str, float]], bool | None],
    guard: NotFiniteGuard,
) -> dict[str, float]:
    """Train from ``engine.step_count`` to the end of the schedule; returns the last validation metrics.

    Where ``after_validation`` returns True, on every worker, the run ends there.

    Raises:
        DivergedError: a loss or gradient is not finite, and ``guard`` says stop; nothing was updated in that step.
        RollBack: weights are not finite, and ``guard`` says that the run should go back.
        Stopped: somebody asked for it; the checkpoint was handed over.
    """
    latest: dict[str, float] = {}
    clock = CheckpointClock(schedule.checkpoint_minutes)
    stage.train()  # a model that was loaded is in evaluation mode
    while engine.step_count < schedule.total_steps:
        waited_from = time.perf_counter()
        batch = next(batches)
        started = time.perf_counter()
        assert batch.step == engine.step_count, f"stream is at step {batch.step}, engine at {engine.step_count}"
        totals = sum_over_workers(throughput.counts(batch) | {"window_digest": batch.window_digest}, context)
        window_digest = totals.pop("window_digest")
        with profiler.step(engine.step_count + 1):
            metrics, heard = _train_step(stage, engine, batch, totals, context, schedule, clock, guard)
        metrics["window_digest"] = window_digest
        ended = time.perf_counter()
        completed = engine.step_count
        throughput.passed(totals, ended - waited_from)
        if completed % schedule.log_every == 0 or completed == schedule.total_steps:
            tracker.metrics(
                completed,
                metrics
                | throughput.metrics()
                | {
                    "progress": completed / schedule.total_steps,
                    "seconds_per_step": ended - started,
                    "data_wait_share": (started - waited_from) / max(ended - waited_from, 1e-9),
                },
            )
        is_stopping = heard.call is Call.STOP
        is_asked = heard.is_time or heard.call in (Call.SAVE, Call.STOP)
        is_extra = is_asked or (heard.call is Call.LOOK and context.is_leaving())
        is_validation, is_saving = schedule.validates(completed), schedule.saves(completed) or is_extra
        is_over = False
        if is_validation:
            stage.eval()
            began = time.perf_counter()
            latest = validate(completed == schedule.total_steps)
            took = {"validation_seconds": time.perf_counter() - began}
            stage.train()
            tracker.metrics(completed, took | {f"validation/{name}": value for name, value in latest.items()})
            is_over = bool(after_validation(completed, latest))
        if is_validation or is_saving:
            checkpoint = save(completed, latest) if is_saving else None
            report: dict[str, Any] = {"step": completed, **latest}
            context.report(report, checkpoint)
            if is_saving:
                clock.saved()
            if checkpoint is not None:
                tracker.metrics(completed, {"checkpoint": float(completed)})
        if is_over:
            break
        if is_stopping and completed < schedule.total_steps:
            raise Stopped(completed, schedule.total_steps)
    return latest


def _train_step(
    stage: Stage,
    engine: Engine,
    batch: StepBatch,
    totals: dict[str, float],
    context: RunContext,
    schedule: Schedule,
    clock: CheckpointClock,
    guard: NotFiniteGuard,
) -> tuple[dict[str, float], _Heard]:
    """One step's metrics, and what the first worker has heard, which all workers know by them."""
    if guard.leaves_out(engine.step_count):
        engine.step_count += 1
        return {}, _Heard()
    seed_step(schedule.seed, engine.step_count, context.rank)
    if engine.step_count == 0:
        stage.before_training(batch.micro_batches, context)
    stage.before_step(engine.step_count, schedule.total_steps)
    shares: dict[str, torch.Tensor] = {}
    for number, micro_batch in enumerate(batch.micro_batches):
        losses = engine(micro_batch.to(context.device), totals)
        engine.backward(losses["loss"], is_last=number == len(batch.micro_batches) - 1)
        for name, share in losses.items():
            shares[name] = shares.get(name, torch.zeros((), device=context.device)) + share.detach()
    hears = [float(context.call()), float(context.rank == 0 and clock.is_due())]
    metrics, (call, time_has_come) = global_means(shares, totals, batch.micro_batches[0].strata, context, hears)
    heard = _Heard(Call(int(call)), time_has_come > 0)
    try:
        if not math.isfinite(metrics["loss"]):
            engine.drop_gradients()
            places = ", ".join(name for name, value in metrics.items() if not math.isfinite(value))
            raise DivergedError(f"step {engine.step_count}: {places} not finite")
        metrics |= engine.step()
    except DivergedError as error:
        return guard.handle(error, batch), heard
    stage.after_step(context)
    return metrics, heard


def global_means(
    shares: Mapping[str, torch.Tensor],
    totals: Mapping[str, float],
    strata: Sequence[str],
    context: RunContext,
    more: Sequence[float] = (),
) -> tuple[dict[str, float], list[float]]:
    """What all workers' shares add up to; sums by stratum become ``raw/hmc``, where there is anything of it.

    ``more`` are numbers that are summed on the way; their sums come second.
    """
    names = sorted(shares)
    others = torch.tensor(more, dtype=torch.float64, device=context.device)
    local = torch.cat([*(shares[name].double().reshape(-1) for name in names), others])
    values = iter(context.all_reduce_sum(local).tolist())
    means: dict[str, float] = {}
    for name in names:
        loss, _, elements = name.partition("/")
        if not elements:
            means[loss] = next(values)
            continue
        for stratum in strata:
            total, number = next(values), totals[f"{elements}/{stratum}"]
            if number:
                means[f"{loss}/{stratum}"] = total / number
    return means, list(values)


def sum_over_workers(counts: Mapping[str, float], context: RunContext) -> dict[str, float]:
    """Global element counts; every worker must have the same names."""
    names = sorted(counts)
    local = torch.tensor([counts[name] for name in names], dtype=torch.float64, device=context.device)
    return dict(zip(names, context.all_reduce_sum(local).tolist(), strict=True))
