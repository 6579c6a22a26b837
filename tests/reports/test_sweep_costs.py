"""Costs, looks and causes, by hand."""

from dataclasses import replace

import pytest

from neurolm.reports.sweep_costs import cause, costs, failures, looks
from tests.reports.sweeps import SWEEP, TRIALS


def test_what_pruning_spared_is_the_rest_of_pruned_trials_only() -> None:
    found = costs(SWEEP)  # full budget 2; pruned after 1 in 30 s; one failed after 1
    assert (found.saved_budget, found.saved_seconds) == (1, 30)
    assert found.total.budget == 2 + 2 + 1 + 1
    assert found.saved_share == pytest.approx(1 / 7)
    assert found.by_state["failed"].trials == 2 and found.lost_seconds == 9
    assert found.total.gpu_hours is None and found.saved_gpu_hours is None


def test_a_trial_of_fewer_epochs_is_spared_the_rest_of_its_own_only() -> None:
    short = replace(TRIALS[2], full_budget=1.5)
    assert costs(replace(SWEEP, trials=[short, TRIALS[2]])).saved_budget == 0.5 + 1


def test_hours_are_added_up_and_a_trial_without_a_report_spares_no_time() -> None:
    pruned = replace(TRIALS[2], gpu_hours=0.5, curve=[(0.5, 0.6)])
    silent = replace(pruned, number=9, curve=[], best_value=None)
    found = costs(replace(SWEEP, trials=[pruned, silent]))
    assert found.total.gpu_hours == 1.0 and found.saved_gpu_hours == 1.5
    assert found.saved_budget == 3.5 and found.saved_seconds == 90


def test_where_pruning_looked() -> None:
    trials = [
        replace(TRIALS[1], rungs=[(1, 0.6), (2, 0.7)]),
        replace(TRIALS[0], rungs=[(1, 0.51)]),
        replace(TRIALS[2], rungs=[(1, 0.4)]),
        replace(TRIALS[2], number=9, rungs=[(1, 0.65), (2, 0.66)]),
    ]
    first, second = looks(replace(SWEEP, trials=trials))
    assert (first.budget, first.went_on, first.stopped) == (1, 3, 1)
    assert (first.went_on_range, first.stopped_range) == ((0.51, 0.65), (0.4, 0.4))
    assert (second.went_on, second.stopped, second.stopped_range) == (1, 1, (0.66, 0.66))
    assert looks(SWEEP) == []


def test_without_a_full_budget_nothing_is_claimed() -> None:
    found = costs(replace(SWEEP, num_validations=None))
    assert found.saved_share is None and found.saved_budget == 0
    assert costs(replace(SWEEP, trials=[])).saved_share is None


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate 2.0 GiB", "out of memory"),
        ("DivergedError: step 312: loss not finite", "value not finite"),
        ("score of the validation at step 4 is no number", "value not finite"),
        ("OSError: [Errno 28] No space left on device", "no room on the disk"),
        ("ActorDiedError: the actor died", "worker or node lost"),
        ("its process died more often than survival.max_failures allows", "worker or node lost"),
        ("batch.size 3 is too small for 2 workers: use 4", "batch.size # is too small for # workers"),
        (None, "no reason given"),
        ("", "no reason given"),
    ],
)
def test_reasons_have_causes(reason: str | None, expected: str) -> None:
    assert cause(reason) == expected


def test_failures_come_by_cause_the_most_frequent_first() -> None:
    trials = [replace(TRIALS[3], number=n, reason=r) for n, r in enumerate(["x: 1", "loss not finite", "not finite"])]
    found = failures(replace(SWEEP, trials=[*trials, TRIALS[0]]))
    assert {name: [one.number for one in group] for name, group in found.items()} == {
        "value not finite": [1, 2],
        "x": [0],
    }
    assert list(found) == ["value not finite", "x"]
