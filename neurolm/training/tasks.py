"""The tasks of a run or of a model folder, and whether they fit the windows that they ask about."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from neurolm.config import build
from neurolm.eeg.shards import WindowIndex
from neurolm.sequences import PATCH_POINTS
from neurolm.text.asked import count_left_out, windows_of_task
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


def refuse_unanswerable(
    index: WindowIndex, tasks: Mapping[str, EncodedTask], context: int, split: str = "train"
) -> None:
    """Find before training what would fail in the middle of it.

    Raises:
        TaskError: windows carry labels that a task has no answer for, or a window and its question together have more
            positions than the language model. A class without any window, and windows that a task's label_map leaves
            out, are only logged.
    """
    for name, task in tasks.items():
        if left_out := count_left_out(index, task.task):
            told = ", ".join(f"{label} ({count})" for label, count in left_out.items())
            logger.info("task %s: %s windows left out by label_map: %s", name, split, told)
        mine = windows_of_task(index, task.task)
        if not len(mine):
            continue
        found = {str(label): int(np.sum(mine.label == label)) for label in set(mine.label)}
        if unknown := sorted(label for label in found if task.task.meaning(label) not in task.labels):
            told = ", ".join(f"{label} ({found[label]} windows)" for label in unknown)
            raise TaskError(
                f"task {name}: no answer for the label {told} of data set {task.task.data_set}; its answers are for "
                f"{', '.join(task.labels)}. Add the label to the task's answers, or leave those windows out with "
                f"label_map: {{{unknown[0]}: null}}"
            )
        meanings = {task.task.meaning(label) for label in found}
        if missing := [label for label in task.labels if label not in meanings]:
            logger.warning("task %s: no %s window is labelled %s", name, split, ", ".join(missing))
        refuse_too_long(task, int(mine.num_times.max()) // PATCH_POINTS, context)


def warn_of_shared_words(tasks: Mapping[str, EncodedTask]) -> None:
    """Say which tasks have answers that begin with the same token.

    The pooled loss, whose states see no question, would ask something else of such a token for each of them.
    """
    beginning: dict[int, list[str]] = {}
    for name, task in tasks.items():
        for first in {answer[0] for answer in task.answers}:
            beginning.setdefault(first, []).append(name)
    if sharing := sorted({name for names in beginning.values() if len(names) > 1 for name in names}):
        logger.warning(
            "losses.pooled_weight: answers of the tasks %s begin alike, and the pooled loss does not see which task is "
            "asked; give each words of its own, or set pooled_weight to 0",
            ", ".join(sharing),
        )


def refuse_too_long(task: EncodedTask, num_seconds: int, context: int) -> None:
    """A window of so many seconds, its question and its answer must have positions. Raises TaskError."""
    longest = task.longest_text
    if num_seconds + longest > context:
        raise TaskError(
            f"task {task.name}: a window of {num_seconds} s and {longest} text tokens need {num_seconds + longest} "
            f"positions, the language model has {context}; shorten the question or the windows"
        )
