"""The published numbers are complete and are compared with what they may be compared with."""

from dataclasses import replace
from pathlib import Path

import pytest

from neurolm.reports.evaluated import read_evaluated
from neurolm.reports.paper import beside_paper, paper_table, published
from neurolm.text.instructions import TASKS
from tests.reports.evaluated import answers, write_evaluated


def test_the_papers_models_have_a_number_for_each_of_its_data_sets() -> None:
    assert set(published()) == {"tuab", "tuev", "seed", "hmc", "workload", "tusl"} <= set(TASKS)
    for name, task in published().items():
        numbers = {one.model: one.balanced_accuracy for one in task.results}
        assert {"NeuroLM-B", "NeuroLM-L", "NeuroLM-XL"} <= numbers.keys()
        assert len(numbers) == len(task.results), "a model stands twice"
        assert all(1 / len(TASKS[name].answers) < number < 1 for number in numbers.values())
    base = {one.model: one for one in published()["workload"].results}["NeuroLM-B"]
    assert (base.balanced_accuracy, base.sd, base.kind) == (0.6172, 0.0113, "multi-task")


@pytest.mark.parametrize(
    ("num_subjects", "split", "note"),
    [
        (6, "test", "Not the same test set: the paper's has 290 windows (ours 48) and 5 subjects (ours 6)."),
        (6, "kfold", "Ours is of split 'kfold', not of a held-out test set"),
    ],
)
def test_another_test_set_is_told(tmp_path: Path, num_subjects: int, split: str, note: str) -> None:
    found = replace(answers(1.0, num_subjects=num_subjects), split=split)
    results = read_evaluated(write_evaluated(tmp_path, found)).results
    (beside,) = beside_paper(results).values()
    assert beside["notes"][1].startswith(note)
    row = {one["model"]: one for one in beside["published"]}["NeuroLM-XL"]
    assert row["ours_minus_theirs"] == pytest.approx(results["tasks"]["workload"]["balanced_accuracy"] - 0.6345)
    assert note in paper_table(results) and "NeuroLM-XL" in paper_table(results)


def test_a_test_set_of_the_same_size_may_still_be_another() -> None:
    task = {"balanced_accuracy": 0.6, "num_windows": 290, "num_subjects": 5, "split": "test"}
    assert "nothing here checks" in beside_paper({"tasks": {"workload": task}})["workload"]["notes"][1]
    assert "check that yours is the same" in beside_paper({"tasks": {"tusl": task}})["tusl"]["notes"][1]


def test_other_tasks_have_nothing_beside_them(tmp_path: Path) -> None:
    results = read_evaluated(write_evaluated(tmp_path, replace(answers(1.0), task="demo_workload"))).results
    assert beside_paper(results) == {}
    assert "no published numbers" in paper_table(results)
