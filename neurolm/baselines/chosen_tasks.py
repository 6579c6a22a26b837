"""Which tasks a baseline is asked, and their windows."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neurolm.config import UserError
from neurolm.eeg.shards import WindowIndex
from neurolm.text.instructions import TASKS, Task, TaskError, chosen_tasks


def tasks_of_store(
    names: Sequence[str] | None, own_tasks: Mapping[str, Task], train: WindowIndex, store: Path
) -> list[Task]:
    """Tasks by name; ``names`` None is every known task that asks about windows of ``train``. Raises UserError."""
    if names is not None:
        return chosen_tasks(names, own_tasks)
    present = set(train.data_set)
    found = [task for task in chosen_tasks((*TASKS, *own_tasks), own_tasks) if task.data_set in present]
    if not found:
        raise UserError(f"{store}: no task asks about its data sets ({', '.join(sorted(present))})")
    return found


def classes_of(task: Task, index: WindowIndex) -> NDArray[np.int64]:
    """The class of every window, in the order of the task's answers. Raises TaskError for a label without an answer."""
    labels = list(task.answers)
    if unknown := sorted({str(label) for label in index.label if label not in labels}):
        raise TaskError(
            f"task {task.name}: no answer for the label {', '.join(unknown)} of data set {task.data_set}; its answers "
            f"are for {', '.join(labels)}. Add the label to the task's answers, or leave those windows out"
        )
    return np.array([labels.index(label) for label in index.label], dtype=np.int64)
