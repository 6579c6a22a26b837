"""The search space of a sweep: where each dotted setting is drawn from, and when it is drawn at all.

Settings are drawn in the order in which they are written, so that a condition can look at what was drawn before it.
Values that Optuna cannot store (lists, sections) are told to it as JSON.
"""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import model_validator

from neurolm.config import ConfigError, config

KINDS = ("uniform", "log_uniform", "integer", "log_integer", "choice")


@config
class Distribution:
    """Where a setting is drawn from; exactly one of the five kinds is given."""

    uniform: tuple[float, float] | None = None
    """Any number between two bounds."""
    log_uniform: tuple[float, float] | None = None
    """Any positive number between two bounds, evenly in its logarithm."""
    integer: tuple[int, int] | None = None
    """A whole number between two bounds, both included."""
    log_integer: tuple[int, int] | None = None
    """A positive whole number between two bounds, both included, evenly in its logarithm."""
    choice: tuple[Any, ...] | None = None
    """One of a list."""
    when: dict[str, tuple[Any, ...]] | None = None
    """Draw it only where settings written before it have one of these values; else it stays as the config has it."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Distribution":
        given = [name for name in KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(KINDS)}; found {given or 'none'}")
        low, high = self._bounds or (0.0, 1.0)
        if low > high:
            raise ValueError(f"{self.kind} from {low:g} to {high:g}: the lower bound is above the upper one")
        if self.kind.startswith("log_") and low <= 0:
            raise ValueError(f"{self.kind} from {low:g}: a logarithm needs a bound above 0")
        if self.choice is not None and not self.choice:
            raise ValueError("choice: there is nothing to choose from")
        return self

    @property
    def kind(self) -> str:
        """Which of the five it is."""
        return next(name for name in KINDS if getattr(self, name) is not None)

    @property
    def _bounds(self) -> tuple[float, float] | None:
        bounds: tuple[float, float] | None = getattr(self, self.kind) if self.choice is None else None
        return bounds

    @property
    def extremes(self) -> tuple[Any, ...]:
        """Values that all have to be possible for the sweep to be: the bounds, or every choice."""
        return self.choice or self._bounds or ()

    @property
    def for_optuna(self) -> BaseDistribution:
        """The same for Optuna."""
        if self.choice is not None:
            return CategoricalDistribution([_stored(value) for value in self.choice])
        low, high = self._bounds or (0.0, 0.0)
        is_log = self.kind.startswith("log_")
        if self.kind.endswith("integer"):
            return IntDistribution(int(low), int(high), log=is_log)
        return FloatDistribution(low, high, log=is_log)

    def suggest(self, trial: optuna.Trial, name: str) -> Any:
        """Draw a value, as Optuna stores it, through an Optuna trial."""
        if self.choice is not None:
            return trial.suggest_categorical(name, [_stored(value) for value in self.choice])
        low, high = self._bounds or (0.0, 0.0)
        if self.kind.endswith("integer"):
            return trial.suggest_int(name, int(low), int(high), log=self.kind.startswith("log_"))
        return trial.suggest_float(name, low, high, log=self.kind.startswith("log_"))

    def holds(self, value: Any) -> bool:
        """Whether the value could be drawn."""
        if self.choice is not None:
            return _stored(value) in [_stored(one) for one in self.choice]
        low, high = self._bounds or (0.0, 0.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return False
        return low <= value <= high and (not self.kind.endswith("integer") or int(value) == value)

    def applies(self, drawn: Mapping[str, Any]) -> bool:
        """Whether the setting is drawn, given what was drawn before."""
        return all(
            name in drawn and _stored(drawn[name]) in [_stored(one) for one in wanted]
            for name, wanted in (self.when or {}).items()
        )

    def describe(self) -> str:
        """The distribution in words: ``log_uniform [1e-05, 0.001] if lora is one of [{}]``."""
        conditions = [f"{name} is one of {json.dumps(list(wanted))}" for name, wanted in (self.when or {}).items()]
        drawn = f"{self.kind} {list(getattr(self, self.kind))}"
        return f"{drawn} if {' and '.join(conditions)}" if conditions else drawn


Space = Mapping[str, Distribution]


def draw(space: Space, trial: optuna.Trial) -> dict[str, Any]:
    """Draw a value of every setting that applies through an Optuna trial."""
    drawn: dict[str, Any] = {}
    for name, distribution in space.items():
        if distribution.applies(drawn):
            drawn[name] = _value(distribution, distribution.suggest(trial, name))
    return drawn


def stored(space: Space, parameters: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """Parameters of a trial as Optuna stores them, and their distributions."""
    distributions = {name: space[name].for_optuna for name in parameters}
    return {name: _stored_for(space[name], value) for name, value in parameters.items()}, distributions


def grid(space: Space) -> dict[str, list[Any]]:
    """Every value of every setting, as Optuna stores them. Raises ConfigError where there are endlessly many."""
    values: dict[str, list[Any]] = {}
    for name, distribution in space.items():
        if distribution.when is not None:
            raise ConfigError(f"sweep.space.{name}: a grid has no conditions; use another sweep.sampler.kind")
        if distribution.choice is not None:
            values[name] = [_stored(value) for value in distribution.choice]
        elif distribution.integer is not None:
            values[name] = list(range(distribution.integer[0], distribution.integer[1] + 1))
        else:
            raise ConfigError(f"sweep.space.{name}: a grid needs choice or integer, found {distribution.kind}")
    return values


def misfits(space: Space, parameters: Mapping[str, Any]) -> Iterator[str]:
    """Why parameters are no point of the space, in words; nothing where they are one."""
    drawn: dict[str, Any] = {}
    for name, value in parameters.items():
        if name not in space:
            yield f"{name} is not in the search space"
        elif not space[name].holds(value):
            yield f"{name}: {value!r} cannot be drawn from {space[name].describe()}"
    for name, distribution in space.items():
        if name in parameters and not distribution.applies(drawn):
            yield f"{name} is given although its condition does not hold: {distribution.describe()}"
        if name in parameters:
            drawn[name] = parameters[name]


def check_conditions(space: Space) -> None:
    """Conditions look back, at values that can occur. Raises ConfigError."""
    seen: list[str] = []
    for name, distribution in space.items():
        for other, wanted in (distribution.when or {}).items():
            if other not in seen:
                raise ConfigError(
                    f"sweep.space.{name}: when: {other} is not drawn before it; write {other} above {name}"
                )
            if strange := [value for value in wanted if not space[other].holds(value)]:
                raise ConfigError(
                    f"sweep.space.{name}: when: {other} can never be {strange[0]!r}: {space[other].describe()}"
                )
        seen.append(name)


def example(space: Space, name: str) -> dict[str, Any]:
    """Values of other settings under which ``name`` is drawn."""
    found: dict[str, Any] = {}
    for other, wanted in (space[name].when or {}).items():
        found |= example(space, other) | {other: wanted[0]}
    return found


def _stored(value: Any) -> Any:
    """A choice as Optuna can store it: whole and other numbers stay apart by their type only where JSON tells them."""
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value, sort_keys=True)


def _stored_for(distribution: Distribution, value: Any) -> Any:
    if distribution.choice is None:
        return int(value) if distribution.kind.endswith("integer") else float(value)
    return next(_stored(one) for one in distribution.choice if _stored(one) == _stored(value))


def _value(distribution: Distribution, drawn: Any) -> Any:
    """What a setting becomes, of what Optuna drew."""
    if distribution.choice is None:
        return drawn
    return next(one for one in distribution.choice if _stored(one) == drawn)


def words(space: Space) -> dict[str, str]:
    """Every setting with its distribution in words."""
    return {name: distribution.describe() for name, distribution in space.items()}
