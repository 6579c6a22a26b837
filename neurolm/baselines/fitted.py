"""What every baseline is once it has learnt: something that answers a task about any windows of a store."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from neurolm.eeg.reading import WindowSource
from neurolm.eeg.shards import WindowIndex
from neurolm.evaluation.predictions import Predictions
from neurolm.text.asked import classes_of_windows
from neurolm.text.instructions import Task

IMPOSSIBLE = -50.0
"""Log-probability of a class that no training window has."""


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers to windows in the order of their index."""

    log_likelihoods: NDArray[np.float64]
    """``[windows, classes]``."""
    greedy_valid: NDArray[np.bool_]
    """``[windows]``; a system that knows nothing but the classes always answers with one of them."""

    @classmethod
    def of(cls, log_likelihoods: NDArray[np.floating]) -> "Answers":
        """Of a system that chooses among the classes."""
        return cls(np.asarray(log_likelihoods, dtype=float), np.ones(len(log_likelihoods), dtype=bool))


class Fitted(Protocol):
    """A baseline that has learnt a task."""

    @property
    def num_parameters(self) -> int | None:
        """Trained numbers; None where they are not known."""
        ...

    @property
    def validation_score(self) -> float | None:
        """By which the moment was chosen that is kept; None where nothing was chosen on validation subjects."""
        ...

    def answers(self, source: WindowSource, index: WindowIndex) -> Answers:
        """Answer windows that may be of any split; labels are not looked at."""
        ...


def spread(classes: NDArray[np.int64], log_probabilities: NDArray[np.floating], num_classes: int) -> Answers:
    """Answers of a model that knows only ``classes``, the columns of ``log_probabilities``, among all of a task's."""
    found = np.full((len(log_probabilities), num_classes), IMPOSSIBLE)
    found[:, classes] = np.maximum(log_probabilities, IMPOSSIBLE)
    return Answers.of(found)


def predictions_of(fitted: Fitted, task: Task, source: WindowSource, index: WindowIndex, split: str) -> Predictions:
    """Answers to any windows of a source beside their labels, as an evaluation keeps them.

    Args:
        fitted: what was fitted to the task.
        task: the task.
        source: the store of the windows, opened where they are of the test split.
        index: windows of the task's data set, from whatever split.
        split: what the predictions say they are of.

    Raises:
        TaskError: a label without an answer.
        MixedWindowsError: windows that are not like the training windows.
    """
    found = fitted.answers(source, index)
    labels = tuple(task.answers)
    return Predictions(
        task=task.name,
        labels=labels,
        positive_class=None if task.positive is None else labels.index(task.positive),
        split=split,
        row=index.rows,
        recording=index.recording,
        subject=index.subject,
        start_s=index.start_s,
        label_index=classes_of_windows(index, task),
        log_likelihoods=found.log_likelihoods,
        greedy_valid=found.greedy_valid,
    )
