"""The only training loop; the three stages, the engines and the launchers plug into it.

Losses are shares of global means (see `neurolm.training.stage`), so the same numbers come out however a global batch is
cut into micro-batches and workers. A non-finite loss stops the run before the optimizer step.
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
from neurolm.training.context import RunContext
from neurolm.training.engine import DivergedError, Engine
from neurolm.training.profiling import StepProfiler
from neurolm.training.stage import Stage
from neurolm.training.throughput import Throughput


@dataclass(frozen=True)
class Schedule:
    """Which steps validate and save. Steps count from 0; a step is *due* when it has been completed."""

    total_steps: int
    validations: int
    """How often to validate, evenly spread, the last time at the end; a run of fewer steps validates after each."""
    checkpoint_steps: int | None = None
    """Steps between checkpoints; None: with every validation."""
    log_every: int = 1

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
    after_validation: Callable[[int, dict[str, float]], None],
) -> dict[str, float]:
    """Train from ``engine.step_count`` to the end of the schedule; returns the last validation metrics.

    Raises:
        DivergedError: a loss or gradient is not finite; nothing was updated in that step.
    """
    latest: dict[str, float] = {}
    while engine.step_count < schedule.total_steps:
        waited_from = time.perf_counter()
        batch = next(batches)
        started = time.perf_counter()
        assert batch.step == engine.step_count, f"stream is at step {batch.step}, engine at {engine.step_count}"
        totals = sum_over_workers(throughput.counts(batch), context)
        with profiler.step(engine.step_count + 1):
            metrics = _train_step(stage, engine, batch, totals, context, schedule)
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
        is_validation, is_saving = schedule.validates(completed), schedule.saves(completed)
        if is_validation:
            stage.eval()
            began = time.perf_counter()
            latest = validate(completed == schedule.total_steps)
            took = {"validation_seconds": time.perf_counter() - began}
            stage.train()
            tracker.metrics(completed, took | {f"validation/{name}": value for name, value in latest.items()})
            after_validation(completed, latest)
        if is_validation or is_saving:
            checkpoint = save(completed, latest) if is_saving else None
            report: dict[str, Any] = {"step": completed, **latest}
            context.report(report, checkpoint)
            if checkpoint is not None:
                tracker.metrics(completed, {"checkpoint": float(completed)})
    return latest


def _train_step(
    stage: Stage,
    engine: Engine,
    batch: StepBatch,
    totals: dict[str, float],
    context: RunContext,
    schedule: Schedule,
) -> dict[str, float]:
    if engine.step_count == 0:
        stage.before_training(batch.micro_batches, context)
    stage.before_step(engine.step_count, schedule.total_steps)
    shares: dict[str, torch.Tensor] = {}
    for number, micro_batch in enumerate(batch.micro_batches):
        losses = engine(micro_batch.to(context.device), totals)
        engine.backward(losses["loss"], is_last=number == len(batch.micro_batches) - 1)
        for name, share in losses.items():
            shares[name] = shares.get(name, torch.zeros((), device=context.device)) + share.detach()
    metrics = global_means(shares, totals, batch.micro_batches[0].strata, context)
    if not math.isfinite(metrics["loss"]):
        places = ", ".join(name for name, value in metrics.items() if not math.isfinite(value))
        raise DivergedError(
            f"step {engine.step_count}: {places} not finite; no weight was changed. "
            "Lower optimizer.learning_rate, or look for extreme windows with `neurolm check`"
        )
    metrics |= engine.step()
    stage.after_step(context)
    return metrics


def global_means(
    shares: Mapping[str, torch.Tensor], totals: Mapping[str, float], strata: Sequence[str], context: RunContext
) -> dict[str, float]:
    """What all workers' shares add up to; sums by stratum become ``raw/hmc``, where there is anything of it."""
    names = sorted(shares)
    local = torch.cat([shares[name].double().reshape(-1) for name in names])
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
    return means


def sum_over_workers(counts: Mapping[str, float], context: RunContext) -> dict[str, float]:
    """Global element counts; every worker must have the same names."""
    names = sorted(counts)
    local = torch.tensor([counts[name] for name in names], dtype=torch.float64, device=context.device)
    return dict(zip(names, context.all_reduce_sum(local).tolist(), strict=True))
