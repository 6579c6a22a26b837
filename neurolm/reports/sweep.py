"""A sweep as a record: what was searched, how, and what became of every trial."""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from neurolm.config import UserError
from neurolm.reports.results import write_whole

SCHEMA_VERSION = 1

State = Literal["complete", "pruned", "failed", "running"]
WORDS = {"complete": "finished", "pruned": "pruned", "failed": "failed", "running": "running"}


class SweepError(UserError):
    """A sweep record that cannot be read."""


@dataclass(frozen=True)
class TrialRecord:
    """One configuration that was tried."""

    number: int
    parameters: dict[str, Any]
    """Dotted setting to the value tried."""
    state: State
    """``complete``: had the full budget; ``pruned``: stopped early as one of the weaker; ``failed``: see reason;
    ``running``: has not ended."""
    reason: str | None
    curve: list[tuple[float, float]]
    """Budget spent and value reached, at every report."""
    best_value: float | None
    """The value of the weights that the trial kept; None if there is none."""
    seconds: float | None
    """Wall time in which it was worked on, over all its starts."""
    task_curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """For each task the curve of its own selection metric, at the same budgets as ``curve``."""
    objectives: dict[str, float] = field(default_factory=dict)
    """Each objective's value for the weights that the trial kept; empty if there is none."""
    rungs: list[tuple[float, float]] = field(default_factory=list)
    """Where pruning looked at the trial: budget, and the best value it had reached by then."""
    starts: int = 1
    """How often it was started; more than once where something was killed."""
    cpu_hours: float | None = None
    """CPUs asked for times hours of work."""
    gpu_hours: float | None = None
    """GPUs asked for times hours of work."""
    kept_at: float | None = None
    """The budget at which the weights that the trial kept were; None in records that do not say."""
    origin: str = "sampler"
    """Who chose the parameters, in words: the sampler, the config's ``first``, or a trial of an earlier sweep."""
    full_budget: float | None = None
    """What it would have trained without pruning, where trials differ in that; None: the sweep's."""

    def __post_init__(self) -> None:
        if self.state not in WORDS:
            raise ValueError(f"trial {self.number}: state {self.state!r}, expected one of {', '.join(WORDS)}")
        if self.best_value is not None and not math.isfinite(self.best_value):
            object.__setattr__(self, "best_value", None)

    @property
    def points(self) -> list[tuple[float, float]]:
        """The curve without values that are no numbers, which a diverged trial reports."""
        return [(at, value) for at, value in self.curve if math.isfinite(value)]


@dataclass(frozen=True)
class SweepRecord:
    """What was searched, how, and what came of it."""

    metric: str
    """What was optimised, in words."""
    space: dict[str, str]
    """Dotted setting to where its values were drawn from, in words."""
    trials: list[TrialRecord]
    importances: dict[str, float] = field(default_factory=dict)
    """Dotted setting to its share of the differences between trials; empty if there were too few to say."""
    num_validations: int | None = None
    """How often a trial of the full budget validates."""
    budget_unit: str = "validation"
    """What the curves' first number counts."""
    full_budget: float | None = None
    """The full budget of a trial in that unit; None: ``num_validations`` is it."""
    mode: Literal["max", "min"] = "max"
    """Whether large or small values of the metric are good."""
    directions: dict[str, Literal["max", "min"]] = field(default_factory=dict)
    """What was optimised, by name; several of them in a multi-objective sweep."""
    sampler: str | None = None
    """How parameters were proposed, in words."""
    pruner: str | None = None
    """When weak trials were stopped, in words."""
    title: str = "Sweep of the instruction tuning"
    """What the page is called."""
    command: str | None = None
    """What runs the best config again; None: ``ray_jobs/train.py`` with best.yaml beside the page."""
    is_finished: bool = True
    """Whether the sweep has ended; a running one writes its record as it goes."""

    @property
    def best(self) -> TrialRecord | None:
        """The best trial among those that had the full budget; None if there is none."""
        finished = [trial for trial in self.trials if trial.state == "complete" and trial.best_value is not None]
        sign = 1 if self.mode == "max" else -1
        return max(finished, key=lambda trial: sign * (trial.best_value or 0.0), default=None)

    @property
    def budget(self) -> float | None:
        """The full budget of a trial, in units of the curves' first number."""
        return self.num_validations if self.full_budget is None else self.full_budget

    def count(self, state: str) -> int:
        """How many trials ended so."""
        return sum(trial.state == state for trial in self.trials)

    def save(self, path: Path) -> None:
        """Write JSON, whole or not at all."""
        write_whole(
            path, json.dumps({"schema": SCHEMA_VERSION} | dataclasses.asdict(self), indent=2, default=str) + "\n"
        )

    @classmethod
    def load(cls, path: Path) -> "SweepRecord":
        """Read what ``save`` wrote. Raises SweepError."""
        try:
            values = json.loads(path.read_text())
            if values.pop("schema") != SCHEMA_VERSION:
                raise ValueError("another schema")
            return cls(trials=[_trial_of(trial) for trial in values.pop("trials")], **values)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SweepError(f"{path}: no readable sweep record of schema {SCHEMA_VERSION} ({error})") from None


def _trial_of(values: dict[str, Any]) -> TrialRecord:
    """A trial as JSON has it, with pairs again where JSON knows only lists."""
    curves = {name: [(at, value) for at, value in values[name]] for name in ("curve", "rungs") if name in values}
    by_task = {name: [(at, value) for at, value in curve] for name, curve in values.get("task_curves", {}).items()}
    return TrialRecord(**(values | curves | {"task_curves": by_task}))
