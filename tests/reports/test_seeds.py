"""Means over seeds by hand; what is not the same experiment is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neurolm.cli import main
from neurolm.evaluation.comparison import ComparisonError
from neurolm.reports.evaluated import read_evaluated
from neurolm.reports.results import ResultsError, read_results, results_table
from neurolm.reports.seeds import over_seeds
from tests.reports.evaluated import answers, write_evaluated


def wrong_in(*subjects: int) -> np.ndarray:
    """Answers that are right but for all windows of the given subjects."""
    labels = np.tile([0, 0, 0, 0, 1, 1, 1, 1], 6)
    odds = np.where(labels == 1, 1.0, -1.0) * np.where(np.isin(np.arange(48) // 8, subjects), -1, 1)
    return np.stack([-odds / 2, odds / 2], axis=1)


def runs(tmp_path: Path) -> list[Path]:
    wrong = [(), (0,), (0, 1)]
    return [
        write_evaluated(
            tmp_path / str(seed), answers(1.0, log_likelihoods=wrong_in(*one)), seed=seed, test_openings=seed + 2
        )
        for seed, one in enumerate(wrong)
    ]


def test_mean_sd_and_interval(tmp_path: Path) -> None:
    results = over_seeds([read_evaluated(out) for out in runs(tmp_path)])
    task = results["tasks"]["workload"]
    assert task["balanced_accuracy"] == pytest.approx(5 / 6)
    assert task["balanced_accuracy_sd"] == pytest.approx(1 / 6)  # 1, 5/6, 4/6
    assert task["cohen_kappa_sd"] == pytest.approx(2 / 6)
    # The mean over seeds of a draw is 1 less a third of subject 1 and two thirds of subject 0.
    assert 0.5 <= task["balanced_accuracy_ci95"][0] < 5 / 6 < task["balanced_accuracy_ci95"][1] == 1.0
    assert (task["num_windows"], task["num_subjects"], task["split"]) == (48, 6, "test")
    assert results["seeds"] == [0, 1, 2] and results["seed"] is None and results["test_openings"] == 4
    assert results["config_digest"] is None and results["git_commit"] == "abc1234" and results["data_digest"] == "da7a"
    assert results["runs"][2] == {"config_digest": "config2", "seed": 2}
    assert "0.833" in results_table(results)


def test_one_file_of_all_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outs = [str(out) for out in runs(tmp_path)]
    main(["results", *outs, "--json", "--out", str(tmp_path / "all.json")])
    said = json.loads(capsys.readouterr().out)
    assert read_results(tmp_path / "all.json") == said["results"]
    main(["results", *outs])
    table = capsys.readouterr().out
    assert "ours, mean of 3 seeds" in table and "0.8333  0.1667" in table


def test_what_is_not_the_same_experiment_is_refused(tmp_path: Path) -> None:
    first = read_evaluated(write_evaluated(tmp_path / "a", answers(1.0)))
    others = {
        "the same seed, 0": write_evaluated(tmp_path / "b", answers(1.0)),
        "different data": write_evaluated(tmp_path / "c", answers(1.0), seed=1, digest="07e4"),
        "has the tasks workload": write_evaluated(tmp_path / "d", replace(answers(1.0), task="other"), seed=1),
    }
    for message, out in others.items():
        with pytest.raises(ResultsError, match=message):
            over_seeds([first, read_evaluated(out)])
    moved = write_evaluated(tmp_path / "e", answers(1.0, start_s=np.arange(48) * 1.0), seed=1)
    with pytest.raises(ComparisonError, match="windows are in both runs"):
        over_seeds([first, read_evaluated(moved)])
