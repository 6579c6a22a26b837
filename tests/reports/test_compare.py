"""Two folders are compared by what lies in them; openings are told and none is made."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from neurolm.cli import main
from neurolm.eeg.privacy import home
from neurolm.eeg.sealing import open_test_split
from neurolm.reports.compare import compare_runs
from tests.reports.evaluated import answers, write_evaluated


def test_the_better_run_is_told_with_its_doubt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_evaluated(tmp_path / "a", answers(0.0), test_openings=2)
    b = write_evaluated(tmp_path / "b", answers(3.0, seed=1), test_openings=4, seed=1)
    main(["compare", str(a), str(b), "--json"])
    said = json.loads(capsys.readouterr().out)
    found = said["tasks"]["workload"]
    assert found["balanced_accuracy"]["difference"] > 0.3 and found["balanced_accuracy"]["difference_ci95"][0] > 0
    assert found["balanced_accuracy"]["p_value"] == found["smallest_p_value"] == 2 / 2**6
    assert (said["a"]["seed"], said["b"]["seed"], said["b"]["out"], said["test_openings"]) == (0, 1, str(b), 4)
    main(["compare", str(a), str(b)])
    table = capsys.readouterr().out
    assert "workload  balanced accuracy" in table and "all exchanges" in table
    assert "With 6 subjects no p can fall below 0.0312." in table
    assert "A was opening 2 of the test split, B opening 4; it has been opened 4 times" in table
    assert not (home() / "test_openings.jsonl").exists()


def test_this_machine_may_know_of_more_openings(tmp_path: Path) -> None:
    a, b = (write_evaluated(tmp_path / name, answers(1.0)) for name in "ab")
    for _ in range(3):
        open_test_split("da7a", "test")
    assert compare_runs(a, b).test_openings == 3


def test_tasks_of_one_run_and_other_stores_are_told(tmp_path: Path) -> None:
    a = write_evaluated(tmp_path / "a", answers(1.0), replace(answers(1.0), task="demo_workload"))
    b = write_evaluated(tmp_path / "b", answers(1.0), digest="07e4")
    notes = compare_runs(a, b).notes
    assert "demo_workload was evaluated in one of the runs only." in notes and any("stores differ" in n for n in notes)


def test_runs_that_cannot_be_paired_are_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_evaluated(tmp_path / "a", answers(1.0))
    for other, message in (
        (answers(1.0, num_subjects=5), "40 windows are in both runs, of 48 in A and 40 in B"),
        (replace(answers(1.0), task="demo_workload"), "no task is in both"),
    ):
        b = write_evaluated(tmp_path / other.task, other)
        with pytest.raises(SystemExit) as caught:
            main(["compare", str(a), str(b)])
        assert caught.value.code == 2 and message in capsys.readouterr().err
