"""A sweep that is cut off anywhere goes on as if it had not been: parameters, looks, budgets and states."""

import json
import math
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from neurolm.config import UserError
from neurolm.distributed import sweep_course
from neurolm.distributed.pruning import PruningConfig
from neurolm.distributed.study import STUDY, final_values, importances, propose
from neurolm.distributed.study_copy import DATABASE
from neurolm.distributed.sweep_course import Course
from neurolm.distributed.sweep_log import FILE_NAME, SweepLog, SweepState, sole_driver
from neurolm.training.keeping import Keep
from tests.distributed.sweeps import FULL, curve, history, make_plan, open_course, run


class NoCopy:
    """In place of optuna.db, where a sweep is opened dozens of times."""

    def __init__(self, *_: Any) -> None:
        pass

    def bring_up_to_date(self, state: SweepState) -> None:
        pass


SAMPLERS = [
    ("tpe", "plain"), ("tpe", "conditional"), ("cma_es", "numbers"), ("nsga2", "conditional"), ("qmc", "plain"),
    ("grid", "grid"), ("random", "plain"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "space"), SAMPLERS)
def test_a_sweep_that_is_cut_off_is_the_same_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, space: str
) -> None:
    monkeypatch.setattr(sweep_course, "StudyCopy", NoCopy)
    plan = make_plan(kind, space)
    run(open_course(tmp_path / "whole", plan), plan)
    whole = history(tmp_path / "whole")
    lines = (tmp_path / "whole" / FILE_NAME).read_text().splitlines(keepends=True)
    assert sum(event["event"] == "trial" for event in whole) == 9
    for cut in range(1, len(lines), 1 if (kind, space) == ("tpe", "plain") else 7):
        folder = tmp_path / f"cut-{cut}"
        folder.mkdir()
        half = lines[cut][: len(lines[cut]) // 2]  # the line during which the process was killed
        (folder / FILE_NAME).write_text("".join(lines[:cut]) + half)
        course = run(open_course(folder, plan), plan)
        assert json.dumps(history(folder)) == json.dumps(whole), f"cut after event {cut}"  # as text: NaN equals NaN
        assert course.num_left == 0


def test_several_at_a_time_keep_what_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three trials take turns; cut off anywhere, those known keep parameters and looks, and as many are made in all."""
    monkeypatch.setattr(sweep_course, "StudyCopy", NoCopy)
    plan = make_plan("tpe", "numbers")

    def take_turns(course: Course) -> Course:
        running = [(trial, curve(trial.parameters, plan.directions)) for trial in course.state.unfinished]
        while True:
            while len(running) < 3 and (new := course.new_trial()) is not None:
                running.append((new, curve(new.parameters, plan.directions)))
            if not running:
                return course
            trial, left = running.pop(0)
            point = next(left, None)
            if point is None:
                course.end(trial.number, "complete")
            elif course.hear(trial.number, [point]).state is None:
                running.append((trial, left))

    whole = take_turns(open_course(tmp_path / "whole", plan))
    lines = (tmp_path / "whole" / FILE_NAME).read_text().splitlines(keepends=True)
    for cut in range(1, len(lines), 6):
        folder = tmp_path / f"cut-{cut}"
        folder.mkdir()
        (folder / FILE_NAME).write_text("".join(lines[:cut]))
        known = open_course(folder, plan).state.trials
        course = take_turns(open_course(folder, plan))
        assert len(course.state.trials) == len(whole.state.trials) == plan.num_trials and course.num_left == 0
        for before, after in zip(known, course.state.trials, strict=False):
            assert (before.parameters, before.full_budget) == (after.parameters, after.full_budget)
            assert after.points[: len(before.points)] == before.points
            assert before.state in (None, after.state)


def test_killed_twice_with_a_copy_for_the_dashboard(tmp_path: Path) -> None:
    """The copy keeps what it was told, whatever lines the kills took from the log after telling it."""
    plan = make_plan("tpe")
    run(open_course(tmp_path / "whole", plan), plan)
    folder = tmp_path / "killed"
    course = open_course(folder, plan)
    for number in (2, 5):
        while (trial := course.new_trial()) is not None and trial.number < number:
            for point in curve(trial.parameters, plan.directions):
                if course.hear(trial.number, [point]).state is not None:
                    break
            course.end(trial.number, "complete")
        course = open_course(folder, plan)
        (unfinished,) = course.state.unfinished
        for point in curve(unfinished.parameters, plan.directions):
            course.hear(unfinished.number, [point])
        course.end(unfinished.number, "complete")
    run(course, plan)
    assert json.dumps(history(folder)) == json.dumps(history(tmp_path / "whole"))
    assert_copy(folder, course)


def assert_copy(folder: Path, course: Course) -> None:
    study = optuna.load_study(study_name=STUDY, storage=f"sqlite:///{folder / DATABASE}")
    states = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL", None: "RUNNING"}
    assert [trial.state.name for trial in study.trials] == [states[trial.state] for trial in course.state.trials]
    for told, trial in zip(study.trials, course.state.trials, strict=True):
        finite = {point.budget: point.score for point in trial.points if math.isfinite(point.score)}
        assert told.intermediate_values == finite
        if trial.state == "complete":
            assert told.value == max(finite.values())


def test_optuna_knows_the_true_states(tmp_path: Path) -> None:
    plan = make_plan("random", num_trials=16)
    course = run(open_course(tmp_path, plan), plan)
    states = [trial.state for trial in course.state.trials]
    assert {"complete", "pruned", "failed"} == set(states)
    assert_copy(tmp_path, course)
    (tmp_path / DATABASE).unlink()
    assert_copy(tmp_path, open_course(tmp_path, plan))  # made anew
    (tmp_path / DATABASE).write_text("not a database")
    assert_copy(tmp_path, open_course(tmp_path, plan))
    assert set(importances(plan, course.state)) <= set(plan.space)


def test_a_trial_costs_only_itself(tmp_path: Path) -> None:
    plan = make_plan("random", num_trials=16)
    course = run(open_course(tmp_path, plan, PruningConfig(kind="none")), plan)
    reasons = {trial.reason for trial in course.state.trials if trial.state == "failed"}
    assert "batch.size 64 does not go with such a decay" in reasons
    assert "score of the validation at step 2 is no number" in reasons
    impossible = next(trial for trial in course.state.trials if trial.reason and "decay" in trial.reason)
    assert impossible.points == [] and impossible.full_budget == 0


def test_what_was_validated_unheard_is_heard_before_it_goes_on(tmp_path: Path) -> None:
    """The driver was dead while the trial validated three times: it is stopped where it would have been."""
    plan = make_plan("random", "numbers")
    course = open_course(tmp_path, plan, PruningConfig(kind="median", grace=0.25, min_trials=1))
    good, weak = course.new_trial(), course.new_trial()
    assert good is not None and weak is not None
    course.hear(good.number, curve({"rate": 1e-3, "decay": 0.0}, plan.directions))
    course.hear(weak.number, curve({"rate": 1e-5, "decay": 0.2}, plan.directions))
    assert (weak.state, len(weak.points)) == ("pruned", 1)
    assert course.rungs(good) == [(250, 0.5), (500, 0.75), (750, 0.875)]
    assert [budget for budget, _ in course.rungs(weak)] == [250]


def test_trials_are_judged_by_the_weights_that_they_keep(tmp_path: Path) -> None:
    """With keep: final the last validation counts, though others were better."""
    plan = make_plan("random", "numbers")
    *rising, last = curve({"rate": 1e-3, "decay": 0.0}, plan.directions)
    points = [*rising, replace(rising[0], step=last.step, budget=last.budget)]
    judged: list[tuple[Keep, float, list[float]]] = [("best", 0.875, [0.875]), ("final", 0.5, [0.5])]
    for keep, score, objectives in judged:
        course = open_course(tmp_path / keep, plan, PruningConfig(kind="none"), keep=keep)
        trial = course.new_trial()
        assert trial is not None
        course.end(course.hear(trial.number, points).number, "complete")
        again = open_course(tmp_path / keep, plan, PruningConfig(kind="none"))  # its log remembers
        kept = again.state.trials[0].kept
        assert kept is not None and kept.score == score
        assert final_values(plan, again.state.trials[0]) == objectives


def test_given_trials_come_first(tmp_path: Path) -> None:
    plan = make_plan("tpe")
    course = Course(tmp_path, plan, PruningConfig(kind="none"), [], lambda parameters: FULL)
    given = [
        {"parameters": {"rate": 1e-3, "decay": 0.1, "size": 32}, "origin": "first"},
        {"parameters": {"rate": 2e-3}, "origin": "trial 3 of b/tune/sweep.json"},
    ]
    course.begin(given, [])
    course.begin([], [])  # a sweep keeps what it was begun with
    first, second, third = course.new_trial(), course.new_trial(), course.new_trial()
    assert first is not None and second is not None and third is not None
    assert first.parameters == given[0]["parameters"] and first.origin == "first"
    assert second.parameters["rate"] == 2e-3 and set(second.parameters) == set(plan.space)
    assert second.origin == "trial 3 of b/tune/sweep.json" and third.origin == "sampler"


def test_the_sampler_learns_from_earlier_sweeps(tmp_path: Path) -> None:
    """With twenty trials told that are good at a rate of 1e-4, TPE proposes near it at once."""
    plan = make_plan("tpe", "numbers")
    learnt = [
        {
            "parameters": {"rate": 10 ** (-5 + 0.2 * number), "decay": 0.1},
            "objectives": {"score": -abs(number - 5.0)},
            "score": -abs(number - 5.0),
            "origin": f"trial {number}",
        }
        for number in range(20)
    ]
    rates = []
    for name, told in (("blank", []), ("told", learnt)):
        course = Course(tmp_path / name, plan, PruningConfig(kind="none"), [], lambda parameters: FULL)
        course.begin([], told)
        proposals = [course.new_trial() for _ in range(5)]
        rates.append([abs(math.log10(trial.parameters["rate"]) + 4) for trial in proposals if trial is not None])
        again = Course(tmp_path / name, plan, PruningConfig(kind="none"), [], lambda parameters: FULL)
        assert len(again.state.unfinished) == 5
    assert statistics.median(rates[1]) < 0.5 < statistics.median(rates[0])


@pytest.mark.parametrize("kind", ["nsga2", "tpe"])
def test_several_objectives(tmp_path: Path, kind: str) -> None:
    plan = make_plan(kind, directions={"sleep": "max", "workload": "max"})
    course = run(open_course(tmp_path, plan, PruningConfig(kind="none")), plan)
    study = optuna.load_study(study_name=STUDY, storage=f"sqlite:///{tmp_path / DATABASE}")
    assert len(study.directions) == 2 and study.metric_names == ["sleep", "workload"]
    complete = [trial for trial in course.state.trials if trial.state == "complete"]
    assert complete and study.best_trials
    for trial in complete:
        assert trial.kept is not None
        assert study.trials[trial.number].values == list(trial.kept.objectives.values())
    assert propose(plan, course.state).parameters  # from whatever it has learnt


def test_a_grid_visits_every_point_once(tmp_path: Path) -> None:
    plan = make_plan("grid", "grid", num_trials=9)
    course = run(open_course(tmp_path, plan), plan)
    points = {(trial.parameters["decay"], trial.parameters["size"]) for trial in course.state.trials}
    assert len(points) == 9


def test_quasi_random_points_are_spread(tmp_path: Path) -> None:
    """Of eight Sobol points after the first, each half of each axis has four, give or take the random first one."""
    plan = make_plan("qmc", "numbers", num_trials=9)
    course = run(open_course(tmp_path, plan), plan)
    lower = [trial.parameters["decay"] < 0.1 for trial in course.state.trials[1:]]
    assert sum(lower) == 4


def test_only_one_process_drives_a_sweep(tmp_path: Path) -> None:
    with (
        sole_driver(tmp_path),
        pytest.raises(UserError, match="another process runs this sweep"),
        sole_driver(tmp_path),
    ):
        pass
    with sole_driver(tmp_path):
        pass


def test_a_damaged_log_is_refused(tmp_path: Path) -> None:
    log = SweepLog(tmp_path)
    log.append("begin", given=[], learnt=[], keep="best")
    log.append("begin", given=[], learnt=[], keep="best")
    text = log.path.read_text()
    log.path.write_text(text[10:])
    with pytest.raises(UserError, match=r"trials\.jsonl: line 1 cannot be read"):
        SweepLog(tmp_path)
