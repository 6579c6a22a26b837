"""The tasks of a run or of a model folder, and whether they fit the windows that they ask about."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from neurolm.config import build
from neurolm.eeg.shards import WindowIndex
from neurolm.sequences import PATCH_POINTS
from neurolm.text.code import TextCode
from neurolm.text.instructions import EncodedTask, Task, TaskError, chosen_tasks, encode_task

logger = logging.getLogger(__name__)


def encoded_tasks(names: Iterable[str], own_tasks: Mapping[str, Task], code: TextCode) -> dict[str, EncodedTask]:
    """Tasks by name, in the ids of a model's text code. Raises TaskError."""
    return {task.name: encode_task(task, code) for task in chosen_tasks(names, own_tasks)}


def own_tasks_of_model(values: Mapping[str, Any]) -> dict[str, Task]:
    """The tasks of its user's own that a model folder's config defines."""
    return {name: build(Task, task, source=f"task {name}") for name, task in values.get("own_tasks", {}).items()}


def tasks_of_model(values: Mapping[str, Any], names: Iterable[str], code: TextCode) -> dict[str, EncodedTask]:
    """Tasks by name for the model of a folder, whose config knows its user's own. Raises TaskError."""
    return encoded_tasks(names, own_tasks_of_model(values), code)


def refuse_unanswerable(index: WindowIndex, tasks: Mapping[str, EncodedTask], context: int) -> None:
    """Find before training what would fail in the middle of it.

    Raises:
        TaskError: windows carry labels that a task has no answer for, or a window and its question together have more
            positions than the language model. A class without any window is only logged.
    """
    for name, task in tasks.items():
        mine = index.take(index.data_set == task.task.data_set)
        if not len(mine):
            continue
        found = {str(label): int(np.sum(mine.label == label)) for label in set(mine.label)}
        if unknown := sorted(set(found) - set(task.labels)):
            told = ", ".join(f"{label} ({found[label]} windows)" for label in unknown)
            raise TaskError(
                f"task {name}: no answer for the label {told} of data set {task.task.data_set}; its answers are for "
                f"{', '.join(task.labels)}. Add the label to the task's answers, or leave those windows out"
            )
        if missing := [label for label in task.labels if label not in found]:
            logger.warning("task %s: no window of a split is labelled %s", name, ", ".join(missing))
        num_seconds = int(mine.num_times.max()) // PATCH_POINTS
        longest = max(len(task.training_text(place).ids) for place in range(len(task.labels)))
        if num_seconds + longest > context:
            raise TaskError(
                f"task {name}: a window of {num_seconds} s and {longest} text tokens need {num_seconds + longest} "
                f"positions, the language model has {context}; shorten the question or the windows"
            )
