"""A linear probe: how much about the classes a straight line can read from the frozen tokenizer's features.

Worth a minute after stage 1, before stages 2 and 3 are paid for: what a linear model cannot find in the features by
far, a small language model seldom finds either. Trained on training subjects, judged on validation subjects; the test
split stays sealed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from neurolm.config import Location, UserError, config
from neurolm.datasets.ingest import Step
from neurolm.eeg.shards import Store, WindowIndex
from neurolm.evaluation.predictions import Predictions, TaskResult, score
from neurolm.models.neural_tokenizer import NUM_CHANNEL_ROWS, NeuralTokenizer
from neurolm.sequences import collate
from neurolm.text.asked import classes_of_windows, windows_of_task
from neurolm.text.instructions import TASKS, Task, chosen_tasks
from neurolm.training.assembly import load_tokenizer

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
"""Inverse regularisations that are compared by cross-validation over training subjects."""
FOLDS = 5


@config
class ProbeRun(Step):
    """A linear probe on the features of a trained tokenizer."""

    tokenizer: Location | None = None
    """Model folder of the tokenizer; null: ``tokenizer/model`` in ``out``."""
    tasks: tuple[str, ...] | None = None
    """Tasks to probe; null: every known task whose data set is in the store."""
    own_tasks: dict[str, Task] = Field(default_factory=dict)
    """Tasks of your own by name, as in stage 3."""
    batch_size: Annotated[int, Field(gt=0)] = 64
    """Windows in one forward pass."""

    @property
    def tokenizer_folder(self) -> Path:
        """The model folder of stage 1."""
        return self.tokenizer or self.out / "tokenizer" / "model"


def probe(run: ProbeRun) -> dict[str, TaskResult]:
    """The validation score of a linear probe for every task.

    Raises:
        UserError: no tokenizer or store is there, a task is not known, or its data set has too few subjects.
    """
    tokenizer, store = load_tokenizer(run.tokenizer_folder), Store.open(run.store)
    train, val = store.index("train"), store.index("val")
    results = {}
    for task in _tasks(run, train):
        parts = [windows_of_task(index, task) for index in (train, val)]
        empty = [name for name, part in zip(("train", "val"), parts, strict=True) if not len(part)]
        if empty:
            raise UserError(f"{run.store}: no {' and no '.join(empty)} windows of {task.data_set} for task {task.name}")
        features = [window_features(tokenizer, store, part.rows, run.batch_size) for part in parts]
        results[task.name] = _fit_and_score(task, parts[0], features[0], parts[1], features[1], run.seed)
    return results


@torch.inference_mode()
def window_features(
    tokenizer: NeuralTokenizer, store: Store, rows: NDArray[np.int64], batch_size: int
) -> NDArray[np.float32]:
    """Features of windows, averaged over the seconds of each channel ``[windows, channels x hidden]``.

    Columns stand for the channels that occur in any of the windows; where a window lacks one, it is 0.
    """
    hidden_size = tokenizer.config.hidden_size
    means = np.zeros((len(rows), NUM_CHANNEL_ROWS, hidden_size), dtype=np.float32)
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        for group in collate(store.read(part), np.arange(start, start + len(part)), text=None, tasks=None).groups:
            features = tokenizer.encode(group.signal, group.channel_index, group.time_indices)
            by_channel = features.unflatten(1, (group.num_seconds, group.num_channels)).mean(1)
            channels = group.channel_index[:, : group.num_channels]
            means[group.position[:, None].numpy(), channels.numpy()] = by_channel.numpy()
    return means.reshape(len(rows), -1)


def table(run: ProbeRun, results: Mapping[str, TaskResult]) -> str:
    """Rows for a terminal."""
    lines = [f"{'task':<16}{'balanced':>10}{'AUROC':>8}{'chance':>8}{'windows':>9}{'subjects':>10}   (validation)"]
    tasks = {task.name: task for task in chosen_tasks(results, run.own_tasks)}
    for name, result in results.items():
        area = "-" if result.auroc is None else f"{result.auroc:.3f}"
        chance = 1 / len(tasks[name].answers)
        lines.append(
            f"{name:<16}{result.balanced_accuracy:>10.3f}{area:>8}{chance:>8.3f}{result.num_windows:>9}"
            f"{result.num_subjects:>10}"
        )
    return "\n".join(lines)


def _tasks(run: ProbeRun, train: WindowIndex) -> list[Task]:
    if run.tasks is not None:
        return chosen_tasks(run.tasks, run.own_tasks)
    present = set(train.data_set)
    found = [task for task in chosen_tasks((*TASKS, *run.own_tasks), run.own_tasks) if task.data_set in present]
    if not found:
        raise UserError(f"{run.store}: no task asks about its data sets ({', '.join(sorted(present))})")
    return found


def _fit_and_score(
    task: Task,
    train: WindowIndex,
    train_features: NDArray[np.float32],
    val: WindowIndex,
    val_features: NDArray[np.float32],
    seed: int,
) -> TaskResult:
    labels = tuple(task.answers)
    classes = [classes_of_windows(index, task) for index in (train, val)]
    used = train_features.std(axis=0) > 0
    model = _chosen_model(train_features[:, used], classes[0], train.subject, seed)
    likelihoods = np.full((len(val), len(labels)), -50.0)  # a class that no training window has
    likelihoods[:, model.classes_] = model.predict_log_proba(val_features[:, used])
    return score(
        Predictions(
            task=task.name,
            labels=labels,
            positive_class=None if task.positive is None else labels.index(task.positive),
            split="val",
            row=val.rows,
            recording=val.recording,
            subject=val.subject,
            start_s=val.start_s,
            label_index=classes[1],
            log_likelihoods=likelihoods,
            greedy_valid=np.ones(len(val), dtype=bool),
        )
    )


def _chosen_model(features: NDArray[np.float32], classes: NDArray[np.int64], subjects: object, seed: int) -> Pipeline:
    """Logistic regression with the strength that does best on held-out training subjects."""
    groups = np.unique(np.asarray(subjects, dtype=str), return_inverse=True)[1]
    models = [
        make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500, random_state=seed))
        for strength in STRENGTHS
    ]
    folds = min(FOLDS, int(groups.max()) + 1)
    if folds < 2:
        raise UserError("a probe needs two or more training subjects; change data.split.counts")
    splits = list(GroupKFold(folds).split(features, classes, groups))
    scores = [cross_val_score(one, features, classes, cv=splits, scoring="balanced_accuracy").mean() for one in models]
    return models[int(np.argmax(scores))].fit(features, classes)
