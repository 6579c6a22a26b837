"""The course of a sweep: which trial comes next, what a validation means for it, and what is on record at the end.

Nothing here knows Ray or a clock: the course follows from the log and from the order in which validations are heard of.
After a kill it goes on from the log, and what a trial validated unheard is read from the trial's own record.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from neurolm.config import UserError
from neurolm.distributed.pruning import PruningConfig, verdict
from neurolm.distributed.study import Plan, propose
from neurolm.distributed.study_copy import StudyCopy
from neurolm.distributed.sweep_log import Point, SweepLog, Trial
from neurolm.distributed.sweep_view import SweepView
from neurolm.reports.sweep import State
from neurolm.training.keeping import Keep


class Course(SweepView):
    """A sweep under way.

    Args:
        folder: of the sweep; what was recorded there is gone on from.
        plan: what proposals depend on.
        pruning: when a trial is stopped.
        looks: budgets at which trials are compared.
        full_budget: instruction tokens of a trial with such parameters; raises UserError where they are impossible.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        pruning: PruningConfig,
        looks: list[int],
        full_budget: Callable[[Mapping[str, Any]], int],
    ) -> None:
        self._pruning, self._full_budget = pruning, full_budget
        self._log = SweepLog(folder)
        super().__init__(plan, looks, self._log.state)
        self._copy = StudyCopy(folder, plan, self.state)
        for trial in self.state.unfinished:
            self._judge(trial)  # it may have been the last thing that was heard before a kill

    def begin(self, given: list[dict[str, Any]], learnt: list[dict[str, Any]], keep: Keep = "best") -> None:
        """Say what to try first, what the sampler is told of earlier sweeps, and which weights trials keep.

        A sweep that has begun stays as it is.
        """
        if self.state.given is None:
            self._append("begin", given=given, learnt=learnt, keep=keep)

    @property
    def num_left(self) -> int:
        """Trials that have not ended."""
        return self.plan.num_trials - len(self.state.trials) + len(self.state.unfinished)

    def new_trial(self) -> Trial | None:
        """Propose the next trial and put it on record; None where all have been. Impossible ones fail at once."""
        while (number := len(self.state.trials)) < self.plan.num_trials:
            given = (self.state.given or [])[number : number + 1]
            proposal = propose(self.plan, self.state, given[0]["parameters"] if given else None)
            try:
                full_budget, mistake = self._full_budget(proposal.parameters), None
            except UserError as error:
                full_budget, mistake = 0, str(error)
            self._append(
                "trial",
                number=number,
                parameters=proposal.parameters,
                origin=given[0]["origin"] if given else "sampler",
                full_budget=full_budget,
                mistake=mistake,
                notes=proposal.notes,
                study_notes=proposal.study_notes,
            )
            trial = self.state.trials[number]
            self._judge(trial)
            if trial.state is None:
                return trial
        return None

    def hear(self, number: int, points: Iterable[Point]) -> Trial:
        """A trial has validated: put on record what is new, and stop it where it is weak or broken."""
        trial = self.state.trials[number]
        for point in points:
            if trial.state is None and (not trial.points or point.step > trial.points[-1].step):
                values = {name: value for name, value in vars(point).items()}
                self._append("report", number=number, **values)
                self._judge(trial)
        return trial

    def end(self, number: int, state: State, reason: str | None = None) -> None:
        """A trial has ended; the first word about it stands."""
        if self.state.trials[number].state is None:
            self._append("end", number=number, state=state, reason=reason)

    def _judge(self, trial: Trial) -> None:
        if trial.mistake is not None:
            self.end(trial.number, "failed", trial.mistake)
        if not trial.points:
            return
        last = trial.points[-1]
        if broken := [name for name, value in (last.objectives | {"score": last.score}).items()
                      if not math.isfinite(value)]:  # fmt: skip
            self.end(trial.number, "failed", f"{', '.join(broken)} of the validation at step {last.step} is no number")
        elif last.budget < trial.full_budget:
            others = [self.curve(one) for one in self.state.trials if one is not trial and one.state != "failed"]
            if reason := verdict(self._pruning, self.looks, self.curve(trial), others):
                self.end(trial.number, "pruned", reason)

    def _append(self, event: str, **fields: Any) -> None:
        self._log.append(event, **fields)
        self._copy.bring_up_to_date(self.state)
