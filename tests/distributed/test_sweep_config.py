"""What a sweep's settings mean, which are refused, and what is taken over from earlier sweeps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from neurolm.config import UserError, build
from neurolm.distributed.sweep_config import TuneRun, check_space
from neurolm.distributed.warm_start import given_first, learnt
from neurolm.reports.sweep import SweepRecord, TrialRecord

SPACE = {"optimizer.learning_rate": {"log_uniform": [1e-4, 1e-2]}, "epochs": {"integer": [2, 8]}}


def make_sweep(out: Path, run: dict[str, Any] | None = None, **sweep: Any) -> TuneRun:
    values = {
        "stage": "instruct", "out": str(out), "tasks": ["workload", "hmc"], "epochs": 4, "validations": 2,
        "batch": {"size": 8}, "optimizer": {"learning_rate": 1e-3}, "engine": {"kind": "torch"},
    }  # fmt: skip
    return build(TuneRun, values | (run or {}) | {"sweep": {"space": SPACE} | sweep}, source="test")


def test_trials_validate_at_equal_budgets(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    assert [sweep.trial_run({"epochs": epochs}).validations for epochs in (2, 4, 6, 8)] == [1, 2, 3, 4]
    assert sweep.trial_run({"epochs": 8, "validations": 1}).validations == 1
    assert sweep.most_epochs == 8
    check_space(sweep)


def test_conditional_settings_are_checked_where_they_apply(tmp_path: Path) -> None:
    space = {"lora": {"choice": [None, {}]}, "lora.rank": {"integer": [4, 8], "when": {"lora": [{}]}}}
    sweep = make_sweep(tmp_path, space=space, first=[{"lora": None}, {"lora": {}, "lora.rank": 8}])
    check_space(sweep)
    trial = sweep.trial_run({"lora": {}, "lora.rank": 8})
    assert trial.lora is not None and trial.lora.rank == 8
    assert sweep.trial_run({"lora": None}).lora is None


def test_dropout_can_be_swept(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, space={"dropout": {"choice": [0.0, 0.1]}})
    check_space(sweep)
    assert sweep.trial_run({"dropout": 0.1}).switches == {"language_model.dropout": 0.1}
    assert sweep.instruct_run().switches == {}


@pytest.mark.parametrize(
    ("sweep", "words"),
    [
        ({"space": {"optimizer.learnin_rate": {"uniform": [0, 1]}}}, "did you mean 'learning_rate'"),
        ({"space": {"batch.size": {"choice": [8, 1]}}}, "too small for 1 workers"),
        ({"first": [{"epochs": 9}]}, r"sweep\.first\[0\]: epochs: 9 cannot be drawn from integer \[2, 8\]"),
        ({"first": [{"seed": 9}]}, "seed is not in the search space"),
        ({"sampler": {"kind": "grid"}}, "a grid needs choice or integer"),
        ({"sampler": {"kind": "grid"}, "space": {"epochs": {"integer": [2, 4]}}}, "found 8, but the grid has 3 points"),
        ({"objective": "tasks"}, "a trial that is weak at one may be the best at another"),
        ({"objective": "tasks", "sampler": {"kind": "cma_es"}, "pruning": {"kind": "none"}}, "has one objective"),
        ({"objective": "sleep/auroc"}, "expected score, tasks, or a validation metric"),
    ],
)
def test_mistakes_are_found_before_the_first_trial(tmp_path: Path, sweep: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_space(make_sweep(tmp_path, **sweep))


def test_objectives(tmp_path: Path) -> None:
    assert make_sweep(tmp_path).directions == {"score": "max"}
    assert make_sweep(tmp_path, objective="tasks").directions == {"workload": "max", "hmc": "max"}
    swept = make_sweep(tmp_path, objective="workload/invalid_answer_rate", direction="min")
    assert swept.directions == {"workload/invalid_answer_rate": "min"}
    check_space(swept)


def trial(number: int, value: float, **parameters: Any) -> TrialRecord:
    return TrialRecord(
        number, parameters, "complete", None, [(100, value)], value, 1.0, objectives={"score": value}
    )  # fmt: skip


def write_earlier(out: Path) -> SweepRecord:
    rates = {"optimizer.learning_rate": 1e-3}
    record = SweepRecord(
        metric="validation balanced accuracy, mean over workload, hmc",
        space={},
        trials=[
            trial(0, 0.5, **rates, epochs=2),
            trial(1, 0.7, **rates, epochs=3, seed=4),
            trial(2, 0.6, **rates, epochs=4),
            replace(trial(3, 0.9, **rates, epochs=5), state="pruned", reason="ASHA"),
        ],
        full_budget=100.0,
        directions={"score": "max"},
    )
    record.save(out / "tune" / "sweep.json")
    return record


def test_the_best_of_earlier_sweeps_are_tried_after_the_configs_own(tmp_path: Path) -> None:
    write_earlier(tmp_path / "b")
    own = {"optimizer.learning_rate": 1e-3, "epochs": 4}
    sweep = make_sweep(tmp_path, first=[own], warm_starts=[{"sweep": str(tmp_path / "b"), "best": 2}])
    found = given_first(sweep)
    assert [one["parameters"] for one in found] == [own, {"optimizer.learning_rate": 1e-3, "epochs": 3}]  # not twice
    assert found[1]["origin"] == f"trial 1 of {tmp_path}/b/tune/sweep.json"
    assert learnt(sweep, "anything", 1) == []


def test_earlier_trials_are_told_only_where_they_compare(tmp_path: Path) -> None:
    record = write_earlier(tmp_path / "b")
    sweep = make_sweep(tmp_path, warm_starts=[{"sweep": str(tmp_path / "b" / "tune" / "sweep.json"), "learn": True}])
    told = learnt(sweep, record.metric, 100)
    assert [one["objectives"]["score"] for one in told] == [0.5, 0.6]  # trial 1 has a setting more
    with pytest.raises(UserError, match=r"its full budget is 100\.0, here it is 200\.0"):
        learnt(sweep, record.metric, 200)
    with pytest.raises(UserError, match="its objective is"):
        learnt(sweep, "another", 100)


def test_earlier_sweeps_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_earlier(tmp_path / "b")
    narrow = {"epochs": {"integer": [2, 2]}}
    with pytest.raises(UserError, match="trial 1 is one of its 3 best, but here epochs: 3 cannot be drawn"):
        given_first(make_sweep(tmp_path, space=narrow, warm_starts=[{"sweep": str(tmp_path / "b")}]))
    with pytest.raises(UserError, match="holds no finished sweep"):
        given_first(make_sweep(tmp_path, warm_starts=[{"sweep": str(tmp_path / "c")}]))
