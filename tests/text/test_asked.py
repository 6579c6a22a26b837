import numpy as np
import pytest

from neurolm.eeg.shards import WindowIndex
from neurolm.text.asked import classes_of_windows, count_left_out, labels_left_out, windows_of_task
from neurolm.text.task import Task, TaskError


def task(data_set: str, label_map: dict[str, str | None]) -> Task:
    return Task(name="t", data_set=data_set, question="?", answers={"a": "A", "b": "B"}, label_map=label_map)


@pytest.fixture
def index() -> WindowIndex:
    data_sets = np.array(["x", "y", "x", "x", "x"], dtype=object)
    labels = np.array(["a", "a", "b", "c", "d"], dtype=object)
    zeros = np.zeros(5, dtype=np.int64)
    return WindowIndex(np.arange(5), zeros, data_sets, labels, labels, labels, zeros.astype(float), zeros, zeros)


def test_a_task_gets_its_windows_with_their_classes(index: WindowIndex) -> None:
    asked = task("x", {"c": None, "d": "a"})
    mine = windows_of_task(index, asked)
    assert mine.rows.tolist() == [0, 2, 4]
    assert classes_of_windows(mine, asked).tolist() == [0, 1, 0]
    assert count_left_out(index, asked) == {"c": 1}
    assert count_left_out(index, task("y", {"c": None})) == {}
    with pytest.raises(TaskError, match="no answer for the label c, d of x"):
        classes_of_windows(windows_of_task(index, task("x", {})), task("x", {}))


def test_windows_are_in_no_batch_where_no_task_asks_about_them() -> None:
    tasks = [task("x", {"c": None, "d": None}), task("x", {"d": None}), task("y", {"c": None})]
    assert labels_left_out(tasks) == (("x", "d"), ("y", "c"))
    assert labels_left_out([task("x", {})]) == ()
