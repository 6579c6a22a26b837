"""What a sweep is: the instruction run that its trials vary, over which settings, and when a weak trial is stopped."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from neurolm.config import as_dict, build, config, override
from neurolm.training.runs import InstructRun


@config
class Distribution:
    """Where a setting is drawn from; exactly one of the four is given."""

    uniform: tuple[float, float] | None = None
    """Any number between two bounds."""
    log_uniform: tuple[float, float] | None = None
    """Any positive number between two bounds, evenly in its logarithm."""
    integer: tuple[int, int] | None = None
    """A whole number between two bounds, both included."""
    choice: tuple[Any, ...] | None = None
    """One of a list."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Distribution":
        given = [name for name in ("uniform", "log_uniform", "integer", "choice") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of uniform, log_uniform, integer, choice; found {given or 'none'}")
        return self

    def suggest(self, trial: Any, name: str) -> Any:
        """Draw a value through an Optuna trial."""
        if self.choice is not None:
            return trial.suggest_categorical(name, list(self.choice))
        if self.integer is not None:
            return trial.suggest_int(name, *self.integer)
        low, high = self.log_uniform or self.uniform or (0.0, 0.0)
        return trial.suggest_float(name, low, high, log=self.log_uniform is not None)

    def describe(self) -> str:
        """The distribution in words: ``log_uniform [1e-05, 0.001]``."""
        kind, value = next((kind, value) for kind, value in dataclasses.asdict(self).items() if value is not None)
        return f"{kind} {list(value)}"


@config
class SweepConfig:
    """How many trials, over which settings, and when a weak one is stopped."""

    num_trials: Annotated[int, Field(gt=0)] = 8
    """Trials in all."""
    workers_per_trial: Annotated[int, Field(gt=0)] = 1
    """Training workers of each trial; more than one needs engine.kind deepspeed."""
    concurrent_trials: Annotated[int, Field(gt=0)] = 1
    """Trials at the same time; bounded by the cluster's resources."""
    space: dict[str, Distribution]
    """Dotted setting names and where their values are drawn from."""
    first: tuple[dict[str, Any], ...] = ()
    """Settings to try before the sampler is asked, for example the paper's."""
    grace_validations: Annotated[int, Field(gt=0)] = 1
    """Validations that every trial is given before it may be stopped (ASHA's grace period)."""
    reduction_factor: Annotated[float, Field(gt=1)] = 2
    """ASHA keeps one in so many trials at every rung."""


@config
class TuneRun(InstructRun):
    """A sweep: the instruction run that trials vary, and how they vary it."""

    sweep: SweepConfig
    """The sweep."""

    @model_validator(mode="after")
    def _trials_are_judged_by_their_best(self) -> "TuneRun":
        if self.keep != "best" or self.patience is not None:
            raise ValueError(
                "a sweep judges trials by their best mean score and stops them itself: leave keep at best and patience "
                "at null, and set them where the best config is trained again (ray_jobs/train.py OUT/best.yaml)"
            )
        return self

    @property
    def sweep_folder(self) -> Path:
        """Where the sweep writes."""
        return self.out / "tune"

    def instruct_run(self, settings: Mapping[str, Any] | None = None) -> InstructRun:
        """The instruction run with some settings replaced. Raises ConfigError."""
        values = as_dict(self)
        values.pop("sweep")
        values["workers"] = self.sweep.workers_per_trial
        return override(build(InstructRun, values, source="sweep"), settings or {})


def check_space(run: TuneRun) -> None:
    """A misspelt name or an impossible value fails before the first trial. Raises ConfigError."""
    for name, distribution in run.sweep.space.items():
        for value in (
            distribution.choice or distribution.integer or distribution.log_uniform or distribution.uniform or ()
        ):
            run.instruct_run({name: value})
    for settings in run.sweep.first:
        run.instruct_run(settings)
