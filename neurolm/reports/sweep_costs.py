"""What a sweep cost: training, time and hours by state, what pruning spared and where it looked, why trials failed."""

import re
from collections.abc import Sequence
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
class Look:
    """A budget at which pruning compared trials."""

    budget: float
    went_on: int
    stopped: int
    went_on_range: tuple[float, float] | None
    """The best values so far, there, of those that went on."""
    stopped_range: tuple[float, float] | None
    """The same of those that were stopped."""


def costs(sweep: SweepRecord) -> Costs:
    """Add up the trials."""
    by_state = {}
    for state in ("complete", "pruned", "failed", "running"):
        if trials := [trial for trial in sweep.trials if trial.state == state]:
            by_state[state] = _cost(trials)
    pruned = [trial for trial in sweep.trials if trial.state == "pruned"]
    total, full = _cost(sweep.trials), sweep.budget
    spared = [(trial, max(0.0, (trial.full_budget or full) - spent(trial))) for trial in pruned] if full else []
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


def looks(sweep: SweepRecord) -> list[Look]:
    """Every budget at which pruning looked at trials, in order."""
    found = []
    for budget in sorted({budget for trial in sweep.trials for budget, _ in trial.rungs}):
        here = [(trial, value) for trial in sweep.trials for at, value in trial.rungs if at == budget]
        is_last = [trial.state == "pruned" and trial.rungs[-1][0] == budget for trial, _ in here]
        stopped = [value for (_, value), last in zip(here, is_last, strict=True) if last]
        went_on = [value for (_, value), last in zip(here, is_last, strict=True) if not last]
        found.append(Look(budget, len(went_on), len(stopped), _range(went_on), _range(stopped)))
    return found


def _range(values: Sequence[float]) -> tuple[float, float] | None:
    return (min(values), max(values)) if values else None


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
