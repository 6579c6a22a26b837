"""The only training loop; the three stages, the engines and the launchers plug into it.

Losses are shares of global means (see `neurolm.training.stage`), so the same numbers come out however a global batch is
cut into micro-batches and workers. A non-finite loss stops the run before the optimizer step.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from neurolm.tracking import Tracker
from neurolm.training.batches import StepBatch
from neurolm.training.context import Call, RunContext
from neurolm.training.engine import DivergedError, Engine
from neurolm.training.stage import Stage
from neurolm.training.stopping import Stopped


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
Validate = Callable[[], dict[str, float]]
"""Validation metrics, equal on every worker."""


def fit(
    stage: Stage,
    engine: Engine,
    batches: Iterator[StepBatch],
    context: RunContext,
    tracker: Tracker,
    schedule: Schedule,
    *,
    validate: Validate,
    save: Save,
    after_validation: Callable[[int, dict[str, float]], None],
) -> dict[str, float]:
    """Train from ``engine.step_count`` to the end of the schedule; returns the last validation metrics.

    Raises:
        DivergedError: a loss or gradient is not finite; nothing was updated in that step.
        Stopped: somebody asked for it; the checkpoint was handed over.
    """
    latest: dict[str, float] = {}
    stage.train()  # a model that was loaded is in evaluation mode
    while engine.step_count < schedule.total_steps:
        waited_from = time.perf_counter()
        batch = next(batches)
        started = time.perf_counter()
        assert batch.step == engine.step_count, f"stream is at step {batch.step}, engine at {engine.step_count}"
        metrics, call = _train_step(stage, engine, batch, context, schedule)
        ended = time.perf_counter()
        completed = engine.step_count
        if completed % schedule.log_every == 0 or completed == schedule.total_steps:
            tracker.metrics(
                completed,
                metrics
                | {
                    "progress": completed / schedule.total_steps,
                    "seconds_per_step": ended - started,
                    "data_wait_share": (started - waited_from) / max(ended - waited_from, 1e-9),
                },
            )
        is_stopping = call is Call.STOP
        is_extra = call in (Call.SAVE, Call.STOP) or (call is Call.LOOK and context.is_leaving())
        is_validation, is_saving = schedule.validates(completed), schedule.saves(completed) or is_extra
        if is_validation:
            stage.eval()
            latest = validate()
            stage.train()
            tracker.metrics(completed, {f"validation/{name}": value for name, value in latest.items()})
            after_validation(completed, latest)
        if is_validation or is_saving:
            checkpoint = save(completed, latest) if is_saving else None
            report: dict[str, Any] = {"step": completed, **latest}
            context.report(report, checkpoint)
        if is_stopping and completed < schedule.total_steps:
            raise Stopped(completed, schedule.total_steps)
    return latest


def _train_step(
    stage: Stage, engine: Engine, batch: StepBatch, context: RunContext, schedule: Schedule
) -> tuple[dict[str, float], Call]:
    totals = sum_over_workers(batch.counts | {"window_digest": batch.window_digest}, context)
    window_digest = totals.pop("window_digest")
    if engine.step_count == 0:
        stage.before_training(batch.micro_batches, context)
    stage.before_step(engine.step_count, schedule.total_steps)
    shares: dict[str, torch.Tensor] = {}
    for number, micro_batch in enumerate(batch.micro_batches):
        losses = engine(micro_batch.to(context.device), totals)
        engine.backward(losses["loss"], is_last=number == len(batch.micro_batches) - 1)
        for name, share in losses.items():
            shares[name] = shares.get(name, torch.zeros((), device=context.device)) + share.detach()
    names = sorted(shares)
    heard = torch.tensor(float(context.call()), device=context.device)
    reduced = context.all_reduce_sum(torch.stack([*(shares[name].double() for name in names), heard.double()]))
    *values, call = reduced.tolist()
    metrics = dict(zip(names, values, strict=True)) | {"window_digest": window_digest}
    if not math.isfinite(metrics["loss"]):
        places = ", ".join(name for name, value in metrics.items() if not math.isfinite(value))
        raise DivergedError(
            f"step {engine.step_count}: {places} not finite; no weight was changed. "
            "Lower optimizer.learning_rate, or look for extreme windows with `neurolm check`"
        )
    metrics |= engine.step()
    stage.after_step(context)
    return metrics, Call(int(call))


def sum_over_workers(counts: dict[str, int], context: RunContext) -> dict[str, float]:
    """Global element counts; every worker must have the same names."""
    names = sorted(counts)
    local = torch.tensor([counts[name] for name in names], dtype=torch.float64, device=context.device)
    return dict(zip(names, context.all_reduce_sum(local).tolist(), strict=True))
