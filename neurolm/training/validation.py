"""What each stage is judged by: its metrics over the validation windows, each counted once whatever the workers."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch

from neurolm.eeg.reading import WindowSource
from neurolm.eeg.shards import WindowIndex
from neurolm.evaluation.predicting import predict_split
from neurolm.evaluation.predictions import Predictions, TaskResult, concatenate, score
from neurolm.models.codebook_health import codebook_health
from neurolm.sequences import Batch, collate
from neurolm.text.instructions import EncodedTask
from neurolm.training.context import RunContext
from neurolm.training.instruct import InstructStage
from neurolm.training.loop import global_means, sum_over_workers
from neurolm.training.runs import InstructRun, TokenizerRun
from neurolm.training.stage import Stage
from neurolm.training.tokenizer import TokenizerStage
from neurolm.training.training_run import TrainingRun


def _validation_batches(
    run: TrainingRun, windows: WindowSource, index: WindowIndex, context: RunContext
) -> Iterator[tuple[Batch, dict[str, float]]]:
    """Batches of this worker's validation windows; every worker yields equally many."""
    size, strata = run.batch.micro_size or run.batch.size, data_sets_of(index)
    for start in range(0, len(index.rows), size):
        rows = index.rows[start : start + size]
        mine = rows[context.rank :: context.world_size]
        batch = collate(windows.read(mine), np.arange(len(mine)), text=None, tasks=None, strata=strata)
        yield batch.to(context.device), sum_over_workers(batch.counts, context)


def validate_losses(
    run: TrainingRun,
    stage: Stage,
    windows: WindowSource,
    index: WindowIndex,
    tasks: Mapping[str, EncodedTask],
    context: RunContext,
) -> dict[str, float]:
    """Means of the stage's losses over all validation windows, each counted once; also by data set."""
    sums: dict[str, float] = {}
    weights: dict[str, float] = {}
    with torch.no_grad():
        for batch, totals in _validation_batches(run, windows, index, context):
            means, _ = global_means(stage(batch, totals), totals, batch.strata, context)
            for name, mean in means.items():
                _, _, data_set = name.partition("/")
                number = totals[f"windows/{data_set}" if data_set else "windows"]
                sums[name] = sums.get(name, 0.0) + mean * number
                weights[name] = weights.get(name, 0.0) + number
    return {name: total / weights[name] for name, total in sums.items()}


def data_sets_of(index: WindowIndex) -> tuple[str, ...]:
    """Names of the windows' data sets, sorted."""
    return tuple(sorted(map(str, set(index.data_set))))


def validate_tokenizer(
    run: TrainingRun,
    stage: Stage,
    windows: WindowSource,
    index: WindowIndex,
    tasks: Mapping[str, EncodedTask],
    context: RunContext,
) -> dict[str, float]:
    """Losses, and whether the codes say more than where they are (codebook health)."""
    assert isinstance(stage, TokenizerStage) and isinstance(run, TokenizerRun)
    metrics = validate_losses(run, stage, windows, index, tasks, context)
    parts: list[np.ndarray] = []
    with torch.no_grad():
        for batch, _ in _validation_batches(run, windows, index, context):
            for group in stage.with_passes(batch).groups:
                codes = stage.tokenizer.codes(
                    stage.tokenizer.encode(group.signal, group.channel_index, group.time_index, group.num_channels)
                )
                time_index = group.time_index.expand_as(codes)
                parts.append(torch.stack([codes, group.channel_index, time_index]).flatten(1).cpu().numpy())
    gathered = np.concatenate([part for worker in context.all_gather_object(parts) for part in worker], axis=1)
    codes, channels, times = (torch.from_numpy(row) for row in gathered)
    health = codebook_health(codes, channels, times, run.model.codebook_size)
    return metrics | {f"codebook_{name}": float(value) for name, value in vars(health).items()}


def validate_answers(
    run: TrainingRun,
    stage: Stage,
    windows: WindowSource,
    index: WindowIndex,
    tasks: Mapping[str, EncodedTask],
    context: RunContext,
) -> dict[str, float]:
    """Every task's metrics on the validation split and their mean, ``score``."""
    assert isinstance(stage, InstructStage) and isinstance(run, InstructRun)
    # Without autocast, as always in evaluation, unless weights in bfloat16 leave no choice.
    is_low = next(stage.model.language_model.parameters()).dtype == torch.bfloat16
    with torch.autocast(context.device.type, dtype=torch.bfloat16, enabled=is_low):
        mine = predict_split(
            stage.model,
            windows,
            index,
            tasks,
            split="val",
            batch_size=run.batch.micro_size or run.batch.size,
            device=context.device,
            rank=context.rank,
            world_size=context.world_size,
            with_passes=stage.with_passes if run.engine.partitions_weights else None,
        )
    everyone: list[dict[str, Predictions]] = context.all_gather_object(mine)
    metrics: dict[str, float] = {}
    scores = []
    for name in tasks:
        result: TaskResult = score(concatenate([part[name] for part in everyone]))
        metrics[f"{name}/balanced_accuracy"] = result.balanced_accuracy
        metrics[f"{name}/invalid_answer_rate"] = result.invalid_answer_rate
        if result.auroc is not None:
            metrics[f"{name}/auroc"] = result.auroc
        metric = tasks[name].task.metric or run.selection
        chosen = getattr(result, metric)
        if chosen is not None:
            metrics[f"{name}/{metric}"] = chosen
        scores.append(result.balanced_accuracy if chosen is None else chosen)
    return metrics | {"score": float(np.mean(scores))}
