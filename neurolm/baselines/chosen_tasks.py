"""Which tasks a baseline is asked."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from neurolm.config import UserError
from neurolm.eeg.shards import WindowIndex
from neurolm.text.instructions import TASKS, Task, chosen_tasks


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
