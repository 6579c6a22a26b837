"""What a sweep's record says of its values: the best so far, peaks of tasks, trade-offs, which settings varied."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from neurolm.reports.sweep import SweepRecord, TrialRecord


@dataclass(frozen=True)
class Peak:
    """Where a task was best in a trial."""

    budget: float
    value: float
    at_chosen: float | None
    """The task's value of the weights that the trial kept."""


@dataclass(frozen=True)
class TaskPeaks:
    """When a task is best, in the best trial and over finished trials."""

    best: Peak | None
    budgets: dict[int, float]
    """Finished trial to the budget of its peak."""
    median: float | None


def sign(direction: str) -> int:
    """1 where large values are good, -1 where small ones are."""
    return 1 if direction == "max" else -1


def chosen_at(sweep: SweepRecord, trial: TrialRecord) -> float | None:
    """The budget at which a trial's weights were kept: by its record, else where its objective was best."""
    if trial.kept_at is not None:
        return trial.kept_at
    points = trial.points
    return max(points, key=lambda point: sign(sweep.mode) * point[1])[0] if points else None


def task_names(sweep: SweepRecord) -> list[str]:
    """The tasks that trials tell apart, in order of appearance."""
    return list(dict.fromkeys(name for trial in sweep.trials for name in trial.task_curves))


def peak(sweep: SweepRecord, trial: TrialRecord, task: str) -> Peak | None:
    """Where a task was best; None if the trial has no value of it."""
    points = [(at, value) for at, value in trial.task_curves.get(task, []) if math.isfinite(value)]
    if not points:
        return None
    budget, value = max(points, key=lambda point: sign(sweep.mode) * point[1])
    return Peak(budget, value, dict(points).get(chosen_at(sweep, trial) or -1.0))


def task_peaks(sweep: SweepRecord) -> dict[str, TaskPeaks]:
    """Every task's peaks."""
    found = {}
    for task in task_names(sweep):
        budgets = {
            trial.number: one.budget
            for trial in sweep.trials
            if trial.state == "complete" and (one := peak(sweep, trial, task)) is not None
        }
        best = peak(sweep, sweep.best, task) if sweep.best else None
        found[task] = TaskPeaks(best, budgets, statistics.median(budgets.values()) if budgets else None)
    return found


def goals(sweep: SweepRecord) -> dict[str, str]:
    """What may be traded against each other, and which way is good: the objectives, else the tasks."""
    if len(sweep.directions) > 1:
        return dict(sweep.directions)
    return dict.fromkeys(task_names(sweep), sweep.mode)


def reached(sweep: SweepRecord, trial: TrialRecord) -> dict[str, float]:
    """A trial's value of every goal, of the weights that it kept; without those that it has none of."""
    names = goals(sweep)
    if len(sweep.directions) > 1:
        return {name: trial.objectives[name] for name in names if name in trial.objectives}
    peaks = {name: peak(sweep, trial, name) for name in names}
    return {name: one.at_chosen for name, one in peaks.items() if one is not None and one.at_chosen is not None}


def comparable(sweep: SweepRecord) -> dict[int, dict[str, float]]:
    """Finished trials that have a value of every goal."""
    names = goals(sweep)
    values = {trial.number: reached(sweep, trial) for trial in sweep.trials if trial.state == "complete"}
    return {number: found for number, found in values.items() if names and len(found) == len(names)}


def front(values: Mapping[int, Mapping[str, float]], directions: Mapping[str, str]) -> list[int]:
    """The trials that no other is at least as good as everywhere and better somewhere, in order of the first goal."""
    plain = {number: [sign(way) * one[name] for name, way in directions.items()] for number, one in values.items()}

    def is_beaten(mine: list[float]) -> bool:
        return any(
            all(other >= own for other, own in zip(others, mine, strict=True)) and others != mine
            for others in plain.values()
        )

    return sorted((number for number, mine in plain.items() if not is_beaten(mine)), key=lambda number: plain[number])


def ranked_settings(sweep: SweepRecord) -> list[str]:
    """The settings searched, the most important first, the others in the order of the space."""
    varied = [
        name
        for name in sweep.space
        if len({str(trial.parameters[name]) for trial in sweep.trials if name in trial.parameters}) > 1
    ]
    return sorted(varied, key=lambda name: -sweep.importances.get(name, 0.0))


def with_value(sweep: SweepRecord) -> list[TrialRecord]:
    """Trials that reached a value, the worst first, so that good ones are drawn over bad ones."""
    found = [trial for trial in sweep.trials if trial.best_value is not None]
    return sorted(found, key=lambda trial: (trial is sweep.best, sign(sweep.mode) * (trial.best_value or 0.0)))


def best_so_far(sweep: SweepRecord) -> dict[int, float]:
    """Finished trial, in order of numbers, to the best value of a finished trial up to it."""
    keep = max if sweep.mode == "max" else min
    found: dict[int, float] = {}
    best: float | None = None
    for trial in sorted(sweep.trials, key=lambda trial: trial.number):
        if trial.state == "complete" and trial.best_value is not None:
            best = trial.best_value if best is None else keep(best, trial.best_value)
            found[trial.number] = best
    return found
