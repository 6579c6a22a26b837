"""Which windows of a store a task is asked about, and what is left out because a label's meaning is null."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from neurolm.eeg.shards import WindowIndex
from neurolm.text.task import Task, TaskError


def windows_of_task(index: WindowIndex, task: Task) -> WindowIndex:
    """The windows of an index that a task is asked about."""
    is_asked = [
        data_set == task.data_set and label not in task.left_out
        for data_set, label in zip(index.data_set, index.label, strict=True)
    ]
    return index.take(np.array(is_asked, dtype=bool))


def classes_of_windows(index: WindowIndex, task: Task) -> NDArray[np.int64]:
    """The class of each window. Raises TaskError for a label that the task has no answer for."""
    classes = list(task.answers)
    found = [task.meaning(label) for label in index.label]
    if unknown := {str(label) for label, meaning in zip(index.label, found, strict=True) if meaning not in classes}:
        raise TaskError(f"task {task.name}: no answer for the label {', '.join(sorted(unknown))} of {task.data_set}")
    return np.array([classes.index(str(meaning)) for meaning in found], dtype=np.int64)


def labels_left_out(tasks: Iterable[Task]) -> tuple[tuple[str, str], ...]:
    """Data set and label of windows that none of the tasks is asked about, so that no batch holds them."""
    by_set: dict[str, list[set[str]]] = {}
    for task in tasks:
        by_set.setdefault(task.data_set, []).append(set(task.left_out))
    return tuple((name, label) for name in sorted(by_set) for label in sorted(set.intersection(*by_set[name])))


def count_left_out(index: WindowIndex, task: Task) -> dict[str, int]:
    """Windows of a task's data set that it is not asked about, by label."""
    labels = index.label[index.data_set == task.data_set]
    counts = {label: int(np.sum(labels == label)) for label in task.left_out}
    return {label: count for label, count in counts.items() if count}
