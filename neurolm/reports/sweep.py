"""A sweep as a record (JSON) and as one page of HTML that needs no network, no server and no colour."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Literal

from neurolm.config import UserError
from neurolm.reports import sweep_charts
from neurolm.reports.charts import number
from neurolm.reports.page import origin, results_section, write_page
from neurolm.reports.results import write_whole

SCHEMA_VERSION = 1

State = Literal["complete", "pruned", "failed"]
WORDS = {"complete": "finished", "pruned": "pruned", "failed": "failed"}


class SweepError(UserError):
    """A sweep record that cannot be read."""


@dataclass(frozen=True)
class TrialRecord:
    """One configuration that was tried."""

    number: int
    parameters: dict[str, Any]
    """Dotted setting to the value tried."""
    state: State
    """``complete``: had the full budget; ``pruned``: stopped early as one of the weaker; ``failed``: see reason."""
    reason: str | None
    curve: list[tuple[float, float]]
    """Budget spent and value reached, at every report."""
    best_value: float | None
    """The best value of the curve; None if there is none."""
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
    origin: str = "sampler"
    """Who chose the parameters, in words: the sampler, the config's ``first``, or a trial of an earlier sweep."""

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

    @property
    def front(self) -> list[TrialRecord]:
        """Trials with the full budget that no other such trial beats or equals in every objective (Pareto front)."""
        finished = [trial for trial in self.trials if trial.state == "complete" and trial.objectives]
        return [trial for trial in finished if not any(self._dominates(other, trial) for other in finished)]

    def _dominates(self, one: TrialRecord, other: TrialRecord) -> bool:
        gains = [
            (one.objectives[name] - other.objectives[name]) * (1 if mode == "max" else -1)
            for name, mode in self.directions.items()
        ]
        return all(gain >= 0 for gain in gains) and any(gain > 0 for gain in gains)

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


def write_report(
    path: Path,
    sweep: SweepRecord,
    results: Mapping[str, Any] | None,
    best_config_yaml: str,
    num_classes: Mapping[str, int] | None = None,
) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        sweep: what was searched.
        results: what ``results.json`` holds, if the best model was evaluated.
        best_config_yaml: the best trial's config, which the page shows and names ``best.yaml``.
        num_classes: of each task, for its chance level.
    """
    shown = {
        "title": escape(sweep.title),
        "headline": _headline(sweep),
        "facts": _facts(sweep),
        "results": results_section(results, num_classes),
        "curves": sweep_charts.learning_curves(sweep),
        "history": sweep_charts.history(sweep),
        "importances": _importances(sweep),
        "slices": "".join(f"<div>{svg}</div>" for svg in sweep_charts.slices(sweep)),
        "space": _space(sweep),
        "trials": _trials(sweep),
        "command": escape(sweep.command or f"python ray_jobs/train.py {path.parent / 'best.yaml'}"),
        "config": escape(best_config_yaml),
        "origin": origin(results),
    }
    write_page(path, "sweep.html", shown)


def _headline(sweep: SweepRecord) -> str:
    best = sweep.best
    if best is None or best.best_value is None:
        return (
            f"<p class='headline'>No trial of {len(sweep.trials)} finished; the reasons are in the table of trials.</p>"
        )
    return (
        f"<p class='headline'><strong>{best.best_value:.3f}</strong> {escape(sweep.metric)}, "
        f"reached by <a href='#trial-{best.number}'>trial {best.number}</a></p>"
        f"<p>The best of {len(sweep.trials)} trials on validation data is a flattering number: it was chosen for being "
        "the best. What the model is worth is the test result below.</p>"
    )


def _facts(sweep: SweepRecord) -> str:
    unit = _plural(sweep.budget_unit)
    states = ", ".join(f"{sweep.count(state)} {WORDS[state]}" for state in WORDS if sweep.count(state))
    seconds = sum(trial.seconds or 0.0 for trial in sweep.trials)
    facts = {"trials": f"{len(sweep.trials)} ({states})", "time of all trials": _duration(seconds)}
    if sweep.budget and sweep.trials:
        run = sum(trial.curve[-1][0] for trial in sweep.trials if trial.curve)
        full = len(sweep.trials) * sweep.budget
        left_out = f"pruning and failures left out {1 - run / full:.0%}"
        facts["budget"] = f"{number(run)} of {number(full)} {unit} run; {left_out}"
    if sweep.mode == "min":
        facts["objective"] = "the smaller the better"
    return "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(fact)}</dd></div>" for name, fact in facts.items())


def _importances(sweep: SweepRecord) -> str:
    if not sweep.importances:
        return "<p>There were too few finished trials to say which setting mattered.</p>"
    few = sweep.count("complete") < 20
    word = "With so few trials this is a hint, no finding." if few else "Shares of the differences between trials."
    return f"{sweep_charts.importances(sweep)}<p class='note'>{word}</p>"


def _space(sweep: SweepRecord) -> str:
    best = sweep.best.parameters if sweep.best else {}
    rows = (
        f"<tr><th scope='row'><code>{_breakable(name)}</code></th><td class='words'>{escape(source)}</td>"
        f"<td>{escape(_value(best[name])) if name in best else '-'}</td></tr>"
        for name, source in sweep.space.items()
    )
    head = "<tr><th scope='col'>setting</th><th scope='col' class='words'>drawn from</th><th scope='col'>best</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"


def _trials(sweep: SweepRecord) -> str:
    names = list(dict.fromkeys([*sweep.space, *(name for trial in sweep.trials for name in trial.parameters)]))
    columns = ["best value", _plural(sweep.budget_unit), "time (s)"]
    head = "<th scope='col'>trial</th><th scope='col' class='words'>state</th>"
    head += "".join(f"<th scope='col'>{escape(name)}</th>" for name in columns)
    head += "".join(f"<th scope='col'><code>{_breakable(name)}</code></th>" for name in names)
    return (
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(_trial(sweep, trial, names) for trial in sweep.trials)}</tbody>"
    )


def _trial(sweep: SweepRecord, trial: TrialRecord, names: list[str]) -> str:
    is_best = trial is sweep.best
    value = "-" if trial.best_value is None else f"{trial.best_value:.4f}"
    budget = number(trial.curve[-1][0]) if trial.curve else "0"
    seconds = "-" if trial.seconds is None else f"{trial.seconds:.0f}"
    reason = f"<small>{escape(trial.reason)}</small>" if trial.reason else ""
    best = " (best)" if is_best else ""
    cells = [value, budget, seconds, *(_value(trial.parameters.get(name)) for name in names)]
    return (
        f"<tr id='trial-{trial.number}'{' class=best' if is_best else ''}><th scope='row'>{trial.number}</th>"
        f"<td class='words'>{sweep_charts.symbol(trial.state)} {WORDS[trial.state]}{best}{reason}</td>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
    )


def _breakable(name: str) -> str:
    """A dotted name that may be broken after its dots and underscores."""
    return escape(name).replace(".", ".<wbr>").replace("_", "_<wbr>")


def _value(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    return "-" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)


def _plural(unit: str) -> str:
    return unit if unit.endswith("s") else f"{unit}s"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
