"""What is on record of a sweep, as pruning and people see it; reads nothing and writes nothing."""

from neurolm.distributed.pruning import Curve, looks_of
from neurolm.distributed.study import Plan
from neurolm.distributed.sweep_log import Point, SweepState, Trial


class SweepView:
    """A sweep's state with what its values mean.

    Args:
        plan: what the sweep optimises.
        looks: budgets at which trials are compared.
        state: what happened; where it goes on, the view does too.
    """

    def __init__(self, plan: Plan, looks: list[int], state: SweepState) -> None:
        self.plan, self.looks, self.state = plan, looks, state

    def shown(self, point: Point) -> float:
        """The value of a curve at a point: the objective, or the mean score where there are several."""
        return point.score if len(self.plan.directions) > 1 else next(iter(point.objectives.values()))

    def rungs(self, trial: Trial) -> list[tuple[float, float]]:
        """Where pruning looked at a trial, and the value that it saw."""
        looks = [budget for budget in self.looks if budget < trial.full_budget]
        return [(budget, self._sign * value) for budget, value in looks_of(looks, self.curve(trial))]

    def curve(self, trial: Trial) -> Curve:
        """Budget and value of every validation, large values being good."""
        return [(point.budget, self._sign * self.shown(point)) for point in trial.points]

    @property
    def _sign(self) -> int:
        return -1 if list(self.plan.directions.values()) == ["min"] else 1
