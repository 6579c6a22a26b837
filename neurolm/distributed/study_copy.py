"""``optuna.db``: a copy of the sweep for ``optuna-dashboard``, with every trial's curve and true state.

Nothing is read from it but what it knows already; it may be deleted at any time and is made anew.
"""

import logging
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from neurolm.distributed.study import STUDY, Plan, directions_of, frozen, learnt_trials, quiet
from neurolm.distributed.sweep_log import SweepState, Trial

logger = logging.getLogger(__name__)

DATABASE = "optuna.db"
"""Beside the record of the sweep; on a disk of the head, as SQLite wants it."""


class StudyCopy:
    """The copy, brought up to date trial by trial.

    Args:
        folder: of the sweep.
        plan: of the sweep.
        state: what is known; a database that says otherwise is made anew.
    """

    def __init__(self, folder: Path, plan: Plan, state: SweepState) -> None:
        self._path, self._plan = folder / DATABASE, plan
        try:
            self._open(state)
        except Exception as error:  # whatever a kill or a disk did to the copy, the sweep goes on
            logger.info("%s is made anew (%s)", self._path, error)
            self._path.unlink(missing_ok=True)
            self._open(state)

    def bring_up_to_date(self, state: SweepState) -> None:
        """Tell Optuna what has happened since; what it knows already stays."""
        try:
            self._tell_all(state)
        except Exception as error:  # a database that somebody locks gets it with the next event, or the next start
            logger.warning("%s is behind the sweep: %s", self._path, error)

    def _open(self, state: SweepState) -> None:
        with quiet():
            self._storage = optuna.storages.RDBStorage(f"sqlite:///{self._path}")
            study = optuna.create_study(
                study_name=STUDY, storage=self._storage, load_if_exists=True, directions=directions_of(self._plan)
            )
            study.set_metric_names(list(self._plan.directions))
        self._study_id = self._storage.get_study_id_from_name(STUDY)
        self._learnt = learnt_trials(self._plan, state)
        known = self._known()
        for trial in self._learnt[len(known) :]:
            self._storage.create_new_trial(self._study_id, trial)
        if len(known) > len(self._learnt) + len(state.trials):
            raise ValueError("it has more trials than there are")
        for trial, told in zip(state.trials, known[len(self._learnt) :], strict=False):
            expected = frozen(self._plan, trial)
            is_other_end = told.state.is_finished() and (told.state, told.values) != (expected.state, expected.values)
            if told.params != expected.params or is_other_end:
                raise ValueError(f"its trial {trial.number} is another one")
        self._tell_all(state)

    def _known(self) -> list[FrozenTrial]:
        return self._storage.get_all_trials(self._study_id, deepcopy=False)

    def _tell_all(self, state: SweepState) -> None:
        known = self._known()[len(self._learnt) :]
        for trial, told in zip(state.trials, known, strict=False):
            if not told.state.is_finished():
                self._tell(trial, told)
        for trial in state.trials[len(known) :]:
            self._storage.create_new_trial(self._study_id, frozen(self._plan, trial))

    def _tell(self, trial: Trial, told: FrozenTrial) -> None:
        trial_id, expected = told._trial_id, frozen(self._plan, trial)
        for step, value in expected.intermediate_values.items():
            if step not in told.intermediate_values:
                self._storage.set_trial_intermediate_value(trial_id, step, value)
        for name, value in expected.user_attrs.items():
            if told.user_attrs.get(name) != value:
                self._storage.set_trial_user_attr(trial_id, name, value)
        if expected.state.is_finished():
            self._storage.set_trial_state_values(trial_id, expected.state, expected.values)
