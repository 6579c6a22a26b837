"""Folds made up of answers: pooled, averaged over seeds, beside a baseline, as pages; by hand where it can be."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neurolm.cli import main
from neurolm.evaluation.pooling import OUT_OF_FOLD, PoolingError
from neurolm.evaluation.predictions import COLUMNS, Predictions
from neurolm.reports.cross_validation import FoldRun, Plan, cross_validation_results, pool_runs
from neurolm.reports.cross_validation_page import write_cross_validation_pages
from neurolm.reports.evaluated import read_evaluated
from neurolm.reports.results import read_results, results_table
from tests.reports.evaluated import answers, write_evaluated

FOLDS = (("s00", "s03"), ("s01", "s04"), ("s02", "s05"))
SEEDS = (0, 1)


def fold_of(whole: Predictions, subjects: tuple[str, ...]) -> Predictions:
    chosen = np.isin(whole.subject.astype(str), list(subjects))
    columns = {name: getattr(whole, name)[chosen] for name in COLUMNS}
    return replace(whole, **columns | {"row": np.arange(chosen.sum())})


def wholes(seed: int) -> list[Predictions]:
    """Two tasks: one of all subjects, one of three of them, so that no fold has more than one of these."""
    return [answers(0.8, seed=seed), replace(answers(0.4, num_subjects=3, seed=seed + 9), task="eyes")]


def write_folds(out: Path, below: str = ".") -> list[FoldRun]:
    runs = []
    for number, subjects in enumerate(FOLDS):
        for seed in SEEDS:
            folder = out / "folds" / f"fold-{number}" / f"seed-{seed}"
            parts = [part for whole in wholes(seed) if len(part := fold_of(whole, subjects))]
            write_evaluated(folder / below, *parts, seed=seed, test_openings=seed + 1, digest=f"da7a{number}")
            if below == ".":
                runs.append(FoldRun.of(out, folder, number, seed, seconds=60.0))
                runs[-1].save(out)
                assert FoldRun.load(folder) == runs[-1]
    return runs


def plan(out: Path, **changes: object) -> Plan:
    return replace(Plan(out, len(FOLDS), "all", "f402e2", {"workload": 48, "eyes": 24}), **changes)


def test_folds_become_one_evaluation_a_seed(tmp_path: Path) -> None:
    runs = write_folds(tmp_path)
    pooled = pool_runs(plan(tmp_path), runs, tmp_path)
    for seed, one in zip(SEEDS, pooled, strict=True):
        assert one.out == tmp_path / f"seed-{seed}"
        read = read_evaluated(one.out)
        whole = write_evaluated(tmp_path / "whole" / str(seed), *wholes(seed))
        expected = read_results(whole / "results.json")["tasks"]
        for task, found in read.results["tasks"].items():
            for each in (found, expected[task]):
                each.pop("calibration")  # its sums are in another order of windows
            assert found == expected[task] | {"split": OUT_OF_FOLD}, "as if one model had answered all of it"
        assert (read.results["seed"], read.results["config_digest"]) == (seed, "f402e2")
        assert (one.out / "evaluation.html").is_file()
    assert pooled[0].results["data_digest"] == pooled[1].results["data_digest"]


def test_results_of_all_seeds_beside_a_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = write_folds(tmp_path)
    write_folds(tmp_path, "baselines/twin")
    pooled = pool_runs(plan(tmp_path), runs, tmp_path)
    twin = pool_runs(plan(tmp_path), runs, tmp_path / "baselines" / "twin", "baselines/twin")
    results = cross_validation_results(plan(tmp_path), runs, pooled, {"twin": twin}, openings=5)
    assert read_results(tmp_path / "results.json") == results
    task = results["tasks"]["workload"]
    each = [one.results["tasks"]["workload"]["balanced_accuracy"] for one in pooled]
    assert task["balanced_accuracy"] == pytest.approx(np.mean(each))
    assert task["balanced_accuracy_sd"] == pytest.approx(np.std(each, ddof=1)) and task["balanced_accuracy_sd"] > 0
    assert task["balanced_accuracy_ci95"] is not None and task["num_subjects"] == 6
    assert results["tasks"]["eyes"]["balanced_accuracy_ci95"] is None
    about = results["cross_validation"]
    assert [(run["fold"], run["seed"]) for run in about["runs"]] == [(f, s) for f in range(3) for s in SEEDS]
    assert set(about["subjects"]["eyes"]) == {"s00", "s01", "s02"}
    same = about["baselines"]["twin"]["ours_minus_theirs"]["workload"]["balanced_accuracy"]
    assert (same["difference"], same["p_value"]) == (0.0, 1.0)
    table = results_table(results)
    assert "3 folds over all subjects. Seeds: 0, 1." in table
    assert "their windows have been opened 5 times so far" in table

    told = [
        {"step": step, "scores": {"workload": workload, "eyes": eyes}, "is_kept": step == 4}
        for step, workload, eyes in ((2, 0.6, 0.9), (4, 0.8, 0.7), (6, 0.7, 0.6))
    ]
    record = tmp_path / runs[0].folder / "instruct" / "validations.json"
    record.parent.mkdir()
    record.write_text(json.dumps(told))
    page, text = write_cross_validation_pages(
        tmp_path, results, [one.results for one in pooled], {"workload": 2, "eyes": 2}
    )
    mean = f"{task['balanced_accuracy']:.3f} ± {task['balanced_accuracy_sd']:.3f}"
    for written in (page.read_text(), text.read_text()):
        assert mean in written and "folds/fold-2/seed-1" in written and "NeuroLM-XL" in written
        assert "eyes, s02" in written and "workload, s02" not in written, "everybody is named where there are few"
        assert "twin, workload" in written
        assert "4 of 6" in written and "step 4: 0.800, kept 0.800" in written and "step 2: 0.900, kept 0.700" in written

    main(["compare", str(tmp_path), str(tmp_path / "seed-0"), "--json"])
    said = json.loads(capsys.readouterr().out)
    assert said["a"]["seed"] == [0, 1] and said["b"]["seed"] == 0
    assert said["tasks"]["workload"]["balanced_accuracy"]["a"] == pytest.approx(task["balanced_accuracy"])
    assert "Choosing a model by this comparison" in " ".join(said["notes"])
    main(["results", str(tmp_path)])
    assert "ours, mean of 2 seeds" in capsys.readouterr().out


def test_one_seed_has_no_sd_and_inner_folds_open_nothing(tmp_path: Path) -> None:
    runs = [run for run in write_folds(tmp_path) if run.seed == 0]
    inner = plan(tmp_path, within="train_and_val")
    pooled = pool_runs(inner, runs, tmp_path)
    results = cross_validation_results(inner, runs, pooled, {}, openings=1)
    assert results["seeds"] == [0] and "balanced_accuracy_sd" not in results["tasks"]["workload"]
    table = results_table(results)
    assert "no test subject is here" in table and "opened" not in table


def test_a_missing_fold_is_not_pooled_over(tmp_path: Path) -> None:
    runs = [run for run in write_folds(tmp_path) if run.fold != 1]
    with pytest.raises(PoolingError, match="answered 32 windows, the data set has 48"):
        pool_runs(plan(tmp_path), runs, tmp_path)
