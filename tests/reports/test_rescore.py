"""Old answers get today's scores; nothing else changes, and no test split is opened."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neurolm.cli import main
from neurolm.eeg.privacy import home
from neurolm.evaluation.predictions import PredictionsError
from neurolm.reports.rescore import rescore
from neurolm.reports.results import ResultsError, read_results
from tests.reports.evaluated import answers, write_evaluated


@pytest.fixture(autouse=True)
def commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROLM_GIT_COMMIT", "fedcba9")


def test_the_same_metrics_change_nothing(tmp_path: Path) -> None:
    write_evaluated(tmp_path, answers(1.0))
    before = (tmp_path / "results.json").read_bytes()
    found = rescore(tmp_path)
    assert (found.changes, found.added, found.not_scored) == ([], {}, [])
    assert (tmp_path / "results.json").read_bytes() == before
    assert found.table().startswith("no score changed\n")
    assert (tmp_path / "evaluation.html").is_file()
    assert not (home() / "test_openings.jsonl").exists()


def test_what_changed_and_what_is_new_is_told_and_the_rest_kept(tmp_path: Path) -> None:
    write_evaluated(tmp_path, answers(1.0), test_openings=3)
    right = read_results(tmp_path / "results.json")
    old = json.loads(json.dumps(right))
    task = old["tasks"]["workload"]
    task["auroc"], task["subjects"]["median"] = 0.25, 0.0
    task["weighted_f1"] += 1e-12  # rounding is no change
    task["of_somebody_else"] = {"kept": True}
    del task["recall"]
    allowed = {"reason": "a test", "num_subjects": 1, "num_recordings": None}
    (tmp_path / "results.json").write_text(json.dumps(old | {"leakage": allowed}))
    answers(0.0).save(tmp_path / "predictions" / "left_over.parquet")

    found = rescore(tmp_path)
    assert [(change.field, change.before) for change in found.changes] == [("auroc", 0.25), ("subjects.median", 0.0)]
    assert found.added == {"workload": ["recall"]} and found.not_scored == ["left_over.parquet"]
    after = read_results(tmp_path / "results.json")
    assert after.pop("leakage") == allowed and right.pop("leakage") is None
    assert after.pop("rescored_git_commit") == "fedcba9"
    assert after["tasks"]["workload"].pop("of_somebody_else") == {"kept": True}
    assert after == right and after["test_openings"] == 3 and after["git_commit"] == "abc1234"
    assert "workload  auroc: 0.2500 -> " in found.table() and "left_over.parquet was not scored" in found.table()


def test_answers_of_another_evaluation_are_refused(tmp_path: Path) -> None:
    write_evaluated(tmp_path, answers(1.0))
    answers(1.0, num_subjects=5).save(tmp_path / "predictions" / "workload.parquet")
    with pytest.raises(ResultsError, match=r"48 windows of split 'test'.*40 of 'test'"):
        rescore(tmp_path)
    (tmp_path / "predictions" / "workload.parquet").unlink()
    with pytest.raises(PredictionsError, match=r"workload\.parquet: no readable predictions"):
        rescore(tmp_path)
    with pytest.raises(ResultsError, match="no readable results"):
        rescore(tmp_path / "elsewhere")


def test_the_command_prints_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_evaluated(tmp_path, answers(1.0))
    main(["rescore", str(tmp_path), "--json"])
    said = json.loads(capsys.readouterr().out)
    assert said["changes"] == [] and said["results"] == str(tmp_path / "results.json")


def test_released_answers_are_scored_again_too(tmp_path: Path) -> None:
    texts = np.array([" Yes"] * 48, dtype=object)
    asked = replace(answers(1.0), released_answer=np.ones(48, dtype=int), released_text=texts)
    write_evaluated(tmp_path, asked)
    assert rescore(tmp_path).changes == []
    assert read_results(tmp_path / "results.json")["tasks"]["workload"]["released_protocol"]["accuracy"] == 0.5
