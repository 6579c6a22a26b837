"""Peaks and fronts, by hand."""

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from neurolm.reports.sweep import SweepRecord, TrialRecord
from neurolm.reports.sweep_analysis import (
    best_so_far,
    comparable,
    front,
    goals,
    peak,
    ranked_settings,
    task_peaks,
    with_value,
)
from tests.reports.sweeps import SWEEP, TRIALS, large_sweep


def with_tasks(number: int, sleep: list[float], workload: list[float]) -> TrialRecord:
    curves = {
        name: [(float(place), value) for place, value in enumerate(values, 1)]
        for name, values in {"sleep": sleep, "workload": workload}.items()
    }
    curve = [(float(place), (a + b) / 2) for place, (a, b) in enumerate(zip(sleep, workload, strict=True), 1)]
    best = max(value for _, value in curve)
    return TrialRecord(number, {}, "complete", None, curve, best, 1.0, task_curves=curves)


def test_a_task_may_peak_elsewhere_than_where_weights_were_kept() -> None:
    trial = with_tasks(0, sleep=[0.5, 0.6, 0.7], workload=[0.8, 0.75, 0.55])
    sweep = replace(SWEEP, trials=[trial])
    found = peak(sweep, trial, "workload")  # the mean is best at 2
    assert found is not None and (found.budget, found.value, found.at_chosen) == (1, 0.8, 0.75)
    peaks = task_peaks(sweep)
    assert peaks["sleep"].median == 3 and peaks["sleep"].budgets == {0: 3}
    assert peak(sweep, trial, "nothing") is None


def test_a_trial_that_kept_its_last_weights_is_told_by_them() -> None:
    trial = replace(with_tasks(0, sleep=[0.5, 0.6, 0.7], workload=[0.8, 0.75, 0.55]), kept_at=3.0)
    found = peak(replace(SWEEP, trials=[trial]), trial, "workload")
    assert found is not None and (found.budget, found.value, found.at_chosen) == (1, 0.8, 0.55)


def test_values_that_are_no_numbers_are_no_peaks() -> None:
    trial = with_tasks(0, sleep=[0.5, math.nan], workload=[0.8, 0.75])
    found = peak(replace(SWEEP, trials=[trial]), trial, "sleep")
    assert found is not None and found.value == 0.5


def test_the_front_of_tasks_holds_those_that_none_beats() -> None:
    trials = [with_tasks(0, [0.7], [0.5]), with_tasks(1, [0.6], [0.6]), with_tasks(2, [0.5], [0.5])]
    sweep = replace(SWEEP, trials=[*trials, replace(trials[0], number=3, state="pruned")])
    assert goals(sweep) == {"sleep": "max", "workload": "max"}
    values = comparable(sweep)
    assert set(values) == {0, 1, 2} and front(values, goals(sweep)) == [1, 0]
    assert front(values, {"sleep": "max", "workload": "min"}) == [0]


def test_objectives_come_before_tasks() -> None:
    trial = replace(with_tasks(0, [0.7], [0.5]), objectives={"sleep": 0.7, "hours": 2.0})
    sweep = replace(SWEEP, trials=[trial], directions={"sleep": "max", "hours": "min"})
    assert comparable(sweep) == {0: {"sleep": 0.7, "hours": 2.0}}


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12))
def test_every_trial_off_the_front_is_beaten_by_one_on_it(points: list[tuple[int, int]]) -> None:
    values = {number: {"a": float(a), "b": float(b)} for number, (a, b) in enumerate(points)}
    kept = front(values, {"a": "max", "b": "max"})
    assert kept
    for number, one in values.items():
        beaten = any(all(values[other][name] >= one[name] for name in one) and values[other] != one for other in kept)
        assert beaten != (number in kept)


def test_the_best_so_far_counts_finished_trials_only() -> None:
    assert best_so_far(SWEEP) == {0: 0.55, 1: 0.71}
    assert best_so_far(replace(SWEEP, mode="min")) == {0: 0.55, 1: 0.55}


def test_settings_are_ranked_by_importance_and_constant_ones_left_out() -> None:
    sweep: SweepRecord = large_sweep()
    assert ranked_settings(sweep)[0] == "optimizer.learning_rate"
    still = [replace(trial, parameters=trial.parameters | {"batch.size": 32}) for trial in sweep.trials]
    assert "batch.size" not in ranked_settings(replace(sweep, trials=still))


def test_the_best_trial_is_drawn_last() -> None:
    assert with_value(SWEEP)[-1] is TRIALS[1]
    assert [trial.number for trial in with_value(SWEEP)] == [0, 2, 1]
