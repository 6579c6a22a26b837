"""When a weak trial is stopped: a pure function of the curves recorded so far, so that no restart changes a decision.

Trials are compared at equal budgets, in instruction tokens seen. A trial's value at a budget is the best it has reached
up to its first validation at or past that budget. A look is taken when a trial first gets there, before its own end.

- ``asha`` (Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning"): looks lie at ``grace`` of the full
  budget and at that times 1, 2, … powers of ``reduction_factor``; of the n trials that have got to a look, the one that
  comes is stopped if ceil(n / reduction_factor) of the others are better.
- ``median`` (Golovin et al. 2017, "Google Vizier"): looks lie at every validation from ``grace`` on; a trial is stopped
  if it is worse than the median of the others there, of which there must be ``min_trials``.
"""

import math
import statistics
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from neurolm.config import config

Curve = Sequence[tuple[float, float]]
"""Budget and value, larger values being better, in order of the budget."""


@config
class PruningConfig:
    """When weak trials are stopped."""

    kind: Literal["asha", "median", "none"] = "asha"
    """Successive halving without waiting, the median rule, or never."""
    grace: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of the full budget, in instruction tokens, that every trial is given before it may be stopped."""
    reduction_factor: Annotated[float, Field(gt=1)] = 2.0
    """asha: about one in so many trials goes on at every look."""
    min_trials: Annotated[int, Field(gt=0)] = 4
    """median: so many other trials must have got to a look."""

    def describe(self, looks: Sequence[int]) -> str:
        """The rule in words, with the budgets at which it looks."""
        if self.kind == "none" or not looks:
            return "no trial is stopped early"
        if self.kind == "asha":
            at = ", ".join(f"{budget:,}" for budget in looks)
            return f"ASHA: 1 in {self.reduction_factor:g} goes on at {at} instruction tokens"
        return f"median rule from {looks[0]:,} instruction tokens on, among {self.min_trials} or more others"


def look_budgets(rule: PruningConfig, full: float, interval: float) -> list[int]:
    """Budgets below ``full`` at which trials are looked at; ``interval`` lies between two validations."""
    if rule.kind == "none":
        return []
    first = rule.grace * full
    if rule.kind == "asha":
        powers = math.ceil(math.log(1 / rule.grace, rule.reduction_factor) - 1e-9)
        return [math.floor(first * rule.reduction_factor**power) for power in range(powers)]
    every = (math.floor(number * interval) for number in range(1, math.ceil(full / interval - 1e-9)))
    return [budget for budget in every if budget >= math.floor(first)]


def value_at(curve: Curve, budget: float) -> float | None:
    """The best value up to the first point at or past a budget; None where the curve does not get there."""
    best = -math.inf
    for at, value in curve:
        best = max(best, value)
        if at >= budget:
            return best
    return None


def looks_of(looks: Sequence[int], curve: Curve) -> list[tuple[float, float]]:
    """Budget and value of every look that was taken at a curve."""
    values = [(budget, value_at(curve, budget)) for budget in looks]
    return [(budget, value) for budget, value in values if value is not None]


def verdict(rule: PruningConfig, looks: Sequence[int], curve: Curve, others: Sequence[Curve]) -> str | None:
    """Why a trial is stopped at the last point of its curve, in words; None where it goes on."""
    before = curve[-2][0] if len(curve) > 1 else -math.inf
    for budget in looks:
        if not before < budget <= curve[-1][0]:
            continue
        own = value_at(curve, budget)
        rivals = [value for other in others if (value := value_at(other, budget)) is not None]
        assert own is not None
        if reason := (_asha if rule.kind == "asha" else _median)(rule, own, rivals):
            return f"{reason} at {budget:,} instruction tokens"
    return None


def _asha(rule: PruningConfig, own: float, rivals: Sequence[float]) -> str | None:
    number = len(rivals) + 1
    kept = math.ceil(number / rule.reduction_factor)
    better = sum(value > own for value in rivals)
    return f"ASHA stopped it: {better} of {number} are better, the best {kept} go on" if better >= kept else None


def _median(rule: PruningConfig, own: float, rivals: Sequence[float]) -> str | None:
    if len(rivals) < rule.min_trials or own >= statistics.median(rivals):
        return None
    return f"median rule stopped it: worse than the median of {len(rivals)} others"
