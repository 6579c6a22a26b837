"""Trains a baseline through the training loop of the stages, and keeps its best moment by validation subjects."""

import copy
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

from neurolm.baselines.settings import BaselineTraining
from neurolm.config import UserError
from neurolm.eeg.order import GlobalOrder
from neurolm.eeg.reading import WindowSource, read_steps
from neurolm.eeg.shards import WindowIndex
from neurolm.evaluation.predictions import Predictions, score
from neurolm.text.instructions import EncodedTask
from neurolm.tracking import Tracker
from neurolm.training.batches import BatchConfig, Batcher
from neurolm.training.context import RunContext
from neurolm.training.engine import TorchEngine
from neurolm.training.loop import Schedule, fit
from neurolm.training.not_finite import NotFiniteConfig, NotFiniteGuard
from neurolm.training.profiling import StepProfiler
from neurolm.training.stage import Stage
from neurolm.training.throughput import Throughput


def learn(
    stage: Stage,
    task: EncodedTask,
    source: WindowSource,
    train: WindowIndex,
    validate: Callable[[], Predictions],
    settings: BaselineTraining,
    *,
    seed: int,
    context: RunContext,
    tracker: Tracker,
) -> float:
    """Train ``stage`` and leave it in evaluation mode with the weights of its best validation; returns that score.

    Args:
        stage: what is trained; its batches are collated with the task.
        task: the only task.
        source: a store.
        train: training windows.
        validate: answers to the validation windows by the stage as it is.
        settings: how to train.
        seed: of the order of windows and of dropout.
        context: one process and its device.
        tracker: gets losses and validation scores.

    Raises:
        UserError: fewer than two training windows.
        DivergedError: a loss or a gradient is not finite.
    """
    order = GlobalOrder(train, batch_size=batch_size(len(train), settings.batch_size), seed=seed)
    total = settings.epochs * order.steps_per_epoch
    engine = TorchEngine(stage, settings.optimizer, total, context.device)
    batcher = Batcher(
        BatchConfig(size=order.batch_size, micro_size=settings.micro_size),
        corpus=None,
        tasks={task.name: task},
        seed=seed,
    )
    best, kept = -math.inf, copy.deepcopy(stage.state_dict())

    def validation(is_last: bool) -> dict[str, float]:
        result = score(validate())
        chosen = getattr(result, settings.selection)
        found = {"balanced_accuracy": result.balanced_accuracy, "auroc": result.auroc}
        return {name: value for name, value in found.items() if value is not None} | {
            "score": result.balanced_accuracy if chosen is None else chosen
        }

    def keep_the_best(step: int, metrics: dict[str, float]) -> None:
        nonlocal best, kept
        if metrics["score"] > best:
            best, kept = metrics["score"], copy.deepcopy(stage.state_dict())

    def save_nothing(step: int, metrics: dict[str, float]) -> Path | None:
        return None

    with tempfile.TemporaryDirectory() as scratch:
        fit(
            stage,
            engine,
            (batcher(part) for part in read_steps(source, order, range(total))),
            context,
            tracker,
            Schedule(total, settings.validations, log_every=max(1, total // 200), seed=seed),
            throughput=Throughput(lambda batch: math.nan, context, None),  # operations are not counted
            profiler=StepProfiler(None, Path(scratch), context.device),
            validate=validation,
            save=save_nothing,
            after_validation=keep_the_best,
            guard=NotFiniteGuard(NotFiniteConfig(), stage, engine, context, tracker, Path(scratch)),
        )
    stage.load_state_dict(kept)
    stage.eval()
    return best


def batch_size(num_windows: int, wanted: int) -> int:
    """``wanted``, or a little more where the last batch of a training epoch would be of one window.

    Batch norms have no statistics of one. Raises UserError for fewer than two windows.
    """
    if num_windows < 2:
        raise UserError(f"{num_windows} training windows; a network needs two or more, so change data.split")
    size = wanted
    while num_windows % size == 1:
        size += 1
    return size
