"""What a sweep is: the instruction run that its trials vary, over which settings, and when weak ones are stopped."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from neurolm.config import ConfigError, Location, as_dict, build, config, digest, override
from neurolm.distributed.pruning import PruningConfig
from neurolm.distributed.search_space import Distribution, check_conditions, example
from neurolm.distributed.study import Direction, Plan, SamplerConfig, check_given, check_sampler
from neurolm.training.runs import InstructRun

PER_TASK = "tasks"
"""Objective of a multi-objective sweep."""
UNSEARCHED = ("concurrent_trials", "workers_per_trial", "confirmation_seeds")
"""Settings of a sweep that say where it runs and what comes after it, not what is searched; they may change."""


@config
class WarmStart:
    """What is taken over from an earlier sweep."""

    sweep: Location
    """Its ``out``, or its ``sweep.json``."""
    best: Annotated[int, Field(ge=0)] = 3
    """So many of its best settings are tried first, as far as they are in this sweep's space."""
    learn: bool = False
    """Tell the sampler its finished trials; for a sweep of the same objective and full budget on the same data."""


@config
class SweepConfig:
    """How many trials, over which settings, for which objective, and when a weak one is stopped."""

    num_trials: Annotated[int, Field(gt=0)] = 8
    """Trials in all."""
    workers_per_trial: Annotated[int, Field(gt=0)] = 1
    """Training workers of each trial; more than one needs engine.kind deepspeed."""
    concurrent_trials: Annotated[int, Field(gt=0)] | None = 1
    """Trials at the same time; null: as many as the cluster has room for. With 1, a sweep can be repeated exactly."""
    space: dict[str, Distribution]
    """Dotted setting names and where their values are drawn from."""
    sampler: SamplerConfig = Field(default_factory=SamplerConfig)
    """How values are proposed."""
    pruning: PruningConfig = Field(default_factory=PruningConfig)
    """When weak trials are stopped; compared at equal numbers of instruction tokens."""
    objective: str = "score"
    """``score``: the mean of the tasks' selection metric. ``tasks``: every task's is an objective of its own. Else the
    name of a validation metric, such as ``workload/balanced_accuracy``."""
    direction: Direction = "max"
    """Whether large or small values of the objective are good."""
    first: tuple[dict[str, Any], ...] = ()
    """Settings to try before the sampler is asked, for example the paper's."""
    warm_starts: tuple[WarmStart, ...] = ()
    """Earlier sweeps to begin from; their best settings come after ``first``."""
    confirmation_seeds: Annotated[int, Field(ge=0)] = 3
    """Fresh seeds on which the best setting is trained again after the sweep, and so is the first of ``first`` (the
    config itself where there is none); 0: neither, and the best trial's own model is kept."""


@config
class TuneRun(InstructRun):
    """A sweep: the instruction run that trials vary, and how they vary it."""

    sweep: SweepConfig
    """The sweep."""

    @model_validator(mode="after")
    def _trials_are_judged_by_one_score(self) -> "TuneRun":
        if self.keep == "ranks" or self.patience is not None:
            raise ValueError(
                "a sweep judges trials by their best mean score, or with keep: final by their last, and stops them "
                "itself: set keep: ranks and patience where the best config is trained again (ray_jobs/train.py "
                "OUT/best.yaml)"
            )
        return self

    @property
    def sweep_folder(self) -> Path:
        """Where the sweep writes."""
        return self.out / "tune"

    @property
    def key(self) -> str:
        """By what MLflow knows the sweep, whose trials and confirmation are below it."""
        values = as_dict(self)
        for name in UNSEARCHED:
            values["sweep"].pop(name)
        return f"{self.sweep_folder}/{digest(values)}"

    @property
    def directions(self) -> dict[str, Direction]:
        """The objectives by name; those of several tasks are called after them."""
        if self.sweep.objective == PER_TASK:
            return dict.fromkeys(self.tasks, self.sweep.direction)
        return {self.sweep.objective: self.sweep.direction}

    @property
    def plan(self) -> Plan:
        """What proposals depend on."""
        sweep = self.sweep
        return Plan(sweep.space, sweep.sampler, self.seed, self.directions, sweep.num_trials)

    def instruct_run(self, settings: Mapping[str, Any] | None = None) -> InstructRun:
        """The instruction run with some settings replaced. Raises ConfigError."""
        values = as_dict(self)
        values.pop("sweep")
        values["workers"] = self.sweep.workers_per_trial
        return override(build(InstructRun, values, source="sweep"), settings or {})

    def trial_run(self, settings: Mapping[str, Any]) -> InstructRun:
        """The instruction run of a trial, which validates after as many instruction tokens as every other.

        So a trial of twice the epochs validates twice as often. Raises ConfigError.
        """
        run = self.instruct_run(settings)
        if "validations" in settings or run.epochs == self.epochs:
            return run
        return override(run, {"validations": math.ceil(self.validations * run.epochs / self.epochs)})

    @property
    def most_epochs(self) -> int:
        """Epochs of the longest trial that can be drawn."""
        drawn = self.sweep.space.get("epochs")
        return max((int(value) for value in drawn.extremes), default=self.epochs) if drawn else self.epochs


def check_space(run: TuneRun) -> None:
    """A misspelt name, an impossible value or an unfit sampler fails before the first trial. Raises UserError."""
    sweep = run.sweep
    check_conditions(sweep.space)
    task = sweep.objective.split("/")[0]
    if task not in ("score", PER_TASK, *run.tasks):
        raise ConfigError(
            f"sweep.objective: found {sweep.objective!r}; expected score, tasks, or a validation metric of a task "
            f"such as {run.tasks[0]}/balanced_accuracy"
        )
    for name, distribution in sweep.space.items():
        for value in distribution.extremes:
            run.trial_run(example(sweep.space, name) | {name: value})
    check_given(run.plan, sweep.first, "sweep.first")
    for settings in sweep.first:
        run.trial_run(settings)
    check_sampler(run.plan, len(sweep.first) + sum(start.best for start in sweep.warm_starts))
    if len(run.directions) > 1 and sweep.pruning.kind != "none":
        raise ConfigError(
            f"sweep.pruning.kind: found {sweep.pruning.kind}, but with an objective for each of "
            f"{', '.join(run.tasks)} a trial that is weak at one may be the best at another; set it to none"
        )
