"""results.json has exactly the public keys, and the table says what a number is worth."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from neurolm.evaluation.predictions import TaskResult
from neurolm.reports.results import ResultsError, read_results, results_table, write_results

WORKLOAD = TaskResult("test", 290, 10, 5, 0.617, (0.52, 0.7), 0.66, 0.64, 0.21, 0.6, 0.01)
SLEEP = TaskResult("test", 80, 4, 4, 0.45, None, 0.71, None, 0.3, 0.44, 0.0)


def written(path: Path, changed: Sequence[dict[str, object]] = (), **tasks: TaskResult) -> dict[str, object]:
    write_results(
        path, tasks, config_digest="c0ffee", data_digest="da7a", git_commit=None, seed=3, test_openings=2,
        changed=changed,
    )  # fmt: skip
    return json.loads(path.read_text())


def test_the_public_format(tmp_path: Path) -> None:
    path = tmp_path / "demo" / "results.json"
    results = written(path, workload=WORKLOAD, hmc=SLEEP)
    assert results == {
        "schema": 1,
        "tasks": {
            "workload": {
                "split": "test", "num_windows": 290, "num_recordings": 10, "num_subjects": 5,
                "balanced_accuracy": 0.617, "balanced_accuracy_ci95": [0.52, 0.7], "auroc": 0.66, "auc_pr": 0.64,
                "cohen_kappa": 0.21, "weighted_f1": 0.6, "invalid_answer_rate": 0.01,
            },
            "hmc": {
                "split": "test", "num_windows": 80, "num_recordings": 4, "num_subjects": 4,
                "balanced_accuracy": 0.45, "balanced_accuracy_ci95": None, "auroc": 0.71, "auc_pr": None,
                "cohen_kappa": 0.3, "weighted_f1": 0.44, "invalid_answer_rate": 0.0,
            },
        },
        "config_digest": "c0ffee", "data_digest": "da7a", "git_commit": None, "seed": 3, "test_openings": 2,
        "leakage": None,
    }  # fmt: skip
    assert read_results(path) == results
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]


def test_what_changed_in_training_stands_in_the_results_and_under_the_table(tmp_path: Path) -> None:
    changed = {"step": 40, "config": "c0de -> c0ffee", "data": "da7a0 -> da7a"}
    results = written(tmp_path / "results.json", [changed], workload=WORKLOAD)
    assert results["resumed_with_changed"] == [changed]
    assert "went on from step 40 with another config, data." in results_table(results)


def test_a_number_that_is_none_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    before = written(path, workload=WORKLOAD)
    with pytest.raises(ValueError, match="JSON"):
        written(path, workload=TaskResult("test", 1, 1, 1, float("nan"), None, None, None, 0.0, 0.0, 0.0))
    assert read_results(path) == before


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 2}'])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ResultsError, match=r"results\.json"):
        read_results(tmp_path / "results.json")


def test_the_table_shows_interval_and_chance(tmp_path: Path) -> None:
    results = written(tmp_path / "r.json", workload=WORKLOAD, hmc=SLEEP)
    header, rule, workload, hmc, _, *notes = results_table(results, {"hmc": 5}).splitlines()
    assert header.split()[0] == "task" and set(rule) == {"─", " "}
    assert "0.617" in workload and "0.520 to 0.700" in workload and "0.500" in workload and "1.0%" in workload
    assert "0.200" in hmc and " - " in hmc
    assert len(header) <= 105
    assert len(header) == len(rule) == len(workload) == len(hmc)
    assert notes[0] == "workload: the interval lies above chance (0.500)."
    assert "hmc: no interval, 4 subjects" in notes[1] and "2 times" in notes[2]


@pytest.mark.parametrize(
    ("interval", "verdict"), [((0.3, 0.45), "lies below"), ((0.5, 0.7), "includes"), ((0.51, 0.7), "lies above")]
)
def test_the_verdict_on_chance(tmp_path: Path, interval: tuple[float, float], verdict: str) -> None:
    task = TaskResult("kfold", 290, 10, 5, 0.6, interval, 0.66, 0.64, 0.21, 0.6, 0.01)
    table = results_table(written(tmp_path / "r.json", workload=task))
    assert f"the interval {verdict} chance" in table and "test split" not in table
