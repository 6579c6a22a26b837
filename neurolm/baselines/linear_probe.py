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

from neurolm.baselines.chosen_tasks import tasks_of_store
from neurolm.baselines.fitted import Answers, predictions_of
from neurolm.baselines.logistic_regression import LogisticModel
from neurolm.config import Location, UserError, config
from neurolm.datasets.ingest import Step
from neurolm.eeg.reading import WindowSource
from neurolm.eeg.shards import Store, WindowIndex
from neurolm.evaluation.predictions import TaskResult, score
from neurolm.models.neural_tokenizer import NeuralTokenizer
from neurolm.models.place_embedding import NUM_CHANNEL_ROWS
from neurolm.sequences import collate
from neurolm.text.asked import classes_of_windows, windows_of_task
from neurolm.text.instructions import Task, chosen_tasks
from neurolm.training.assembly import load_tokenizer


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
    for task in tasks_of_store(run.tasks, run.own_tasks, train, run.store):
        parts = [windows_of_task(index, task) for index in (train, val)]
        empty = [name for name, part in zip(("train", "val"), parts, strict=True) if not len(part)]
        if empty:
            raise UserError(f"{run.store}: no {' and no '.join(empty)} windows of {task.data_set} for task {task.name}")
        fitted = LinearProbe(tokenizer, task, store, parts[0], seed=run.seed, batch_size=run.batch_size)
        results[task.name] = score(predictions_of(fitted, task, store, parts[1], split="val"))
    return results


class LinearProbe:
    """Logistic regression on the features of a frozen tokenizer.

    Args:
        tokenizer: of stage 1, in evaluation mode.
        task: that is learnt.
        source: a store.
        train: training windows; their montages may differ.
        seed: of the solver.
        batch_size: windows in one forward pass.

    Raises:
        UserError: too few subjects or classes, or a label without an answer.
    """

    validation_score = None

    def __init__(
        self,
        tokenizer: NeuralTokenizer,
        task: Task,
        source: WindowSource,
        train: WindowIndex,
        *,
        seed: int,
        batch_size: int,
    ) -> None:
        self._tokenizer, self._task, self._batch_size = tokenizer, task, batch_size
        features = window_features(tokenizer, source, train.rows, batch_size)
        self._model = LogisticModel(features, classes_of_windows(train, task), train.subject, seed)

    @property
    def num_parameters(self) -> int:
        """Weights and biases of the line; the tokenizer is not trained."""
        return self._model.num_parameters

    def answers(self, source: WindowSource, index: WindowIndex) -> Answers:
        """Log-probabilities of the regression."""
        features = window_features(self._tokenizer, source, index.rows, self._batch_size)
        return self._model.answers(features, len(self._task.answers))


@torch.inference_mode()
def window_features(
    tokenizer: NeuralTokenizer, source: WindowSource, rows: NDArray[np.int64], batch_size: int
) -> NDArray[np.float32]:
    """Features of windows, averaged over the seconds of each channel ``[windows, channels x hidden]``.

    Columns stand for the channels that occur in any of the windows; where a window lacks one, it is 0.
    """
    hidden_size = tokenizer.config.hidden_size
    means = np.zeros((len(rows), NUM_CHANNEL_ROWS, hidden_size), dtype=np.float32)
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        for group in collate(source.read(part), np.arange(start, start + len(part)), text=None, tasks=None).groups:
            features = tokenizer.encode(group.signal, group.channel_index, group.time_indices, group.num_channels)
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
