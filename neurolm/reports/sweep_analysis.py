"""What a sweep's record says: costs, causes of failure, peaks of tasks, trade-offs. HTML, Markdown and JSON tell it."""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from neurolm.reports.sweep import SweepRecord, TrialRecord

CAUSES = {
    "out of memory": r"out of memory|outofmemory|\boom\b|cannot allocate|memoryerror",
    "value not finite": r"not finite|no number|\bnan\b|\binf\b|diverged",
    "no room on the disk": r"no space|disk (is )?full|quota",
    "worker or node lost": r"\bdied|\blost\b|preempt|\bnode\b|\bkilled|actor|heartbeat|connection",
}
"""Causes in words, and how their reasons read."""


@dataclass(frozen=True)
class StateCost:
    """What the trials of one state have used."""

    trials: int
    budget: float
    """Of training, in the record's unit."""
    seconds: float
    cpu_hours: float | None
    gpu_hours: float | None


@dataclass(frozen=True)
class Costs:
    """What a sweep has used, and what it would have used without pruning."""

    by_state: dict[str, StateCost]
    total: StateCost
    saved_budget: float
    """Training that pruned trials were spared."""
    saved_share: float | None
    """The same of all that the sweep would have trained without pruning."""
    saved_seconds: float
    """An estimate: the rest of every pruned trial at its own pace."""
    saved_gpu_hours: float | None
    lost_seconds: float
    """Time of trials that failed."""


@dataclass(frozen=True)
class Peak:
    """Where a task was best in a trial."""

    budget: float
    value: float
    at_chosen: float | None
    """The task's value where the trial's objective was best, which is what was kept."""


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


def costs(sweep: SweepRecord) -> Costs:
    """Add up the trials."""
    by_state = {}
    for state in ("complete", "pruned", "failed", "running"):
        if trials := [trial for trial in sweep.trials if trial.state == state]:
            by_state[state] = _cost(trials)
    pruned = [trial for trial in sweep.trials if trial.state == "pruned"]
    total, full = _cost(sweep.trials), sweep.budget
    spared = [(trial, max(0.0, full - spent(trial))) for trial in pruned] if full else []
    saved = sum(rest for _, rest in spared)
    pace = {id(trial): rest / spent(trial) for trial, rest in spared if spent(trial)}
    gpu = [(trial.gpu_hours or 0.0) * pace.get(id(trial), 0.0) for trial in pruned if trial.gpu_hours is not None]
    return Costs(
        by_state=by_state,
        total=total,
        saved_budget=saved,
        saved_share=saved / (saved + total.budget) if saved + total.budget and full else None,
        saved_seconds=sum((trial.seconds or 0.0) * pace.get(id(trial), 0.0) for trial in pruned),
        saved_gpu_hours=sum(gpu) if gpu else None,
        lost_seconds=by_state["failed"].seconds if "failed" in by_state else 0.0,
    )


def spent(trial: TrialRecord) -> float:
    """The budget up to a trial's last report."""
    return trial.curve[-1][0] if trial.curve else 0.0


def _cost(trials: Sequence[TrialRecord]) -> StateCost:
    cpu, gpu = ([getattr(trial, name) for trial in trials] for name in ("cpu_hours", "gpu_hours"))
    return StateCost(
        trials=len(trials),
        budget=sum(spent(trial) for trial in trials),
        seconds=sum(trial.seconds or 0.0 for trial in trials),
        cpu_hours=_sum(cpu),
        gpu_hours=_sum(gpu),
    )


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def failures(sweep: SweepRecord) -> dict[str, list[TrialRecord]]:
    """The failed trials by cause, the most frequent first."""
    found: dict[str, list[TrialRecord]] = {}
    for trial in sweep.trials:
        if trial.state == "failed":
            found.setdefault(cause(trial.reason), []).append(trial)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def cause(reason: str | None) -> str:
    """A reason's kind: one of ``CAUSES``, else the reason's first words without its numbers."""
    text = (reason or "").strip()
    for name, pattern in CAUSES.items():
        if re.search(pattern, text, re.IGNORECASE):
            return name
    first = re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "#", text.partition(":")[0].partition("\n")[0]).strip()
    return first[:60] or "no reason given"


def chosen_at(sweep: SweepRecord, trial: TrialRecord) -> float | None:
    """The budget at which a trial's objective was best, where its weights were kept."""
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
