"""Stands between the course of a sweep and whoever runs its trials: hears of validations, asks trials to stop."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from neurolm.distributed.context import StopFlag
from neurolm.distributed.sweep_config import TuneRun
from neurolm.distributed.sweep_course import Course
from neurolm.distributed.sweep_log import Trial, trial_name
from neurolm.distributed.train import anchored
from neurolm.distributed.trial_budget import STATE_TAG, BudgetAxis, points, read_recording
from neurolm.progress import Bar
from neurolm.reports.sweep import State
from neurolm.tracking import Status, start_run
from neurolm.training.run_checkpoint import RunCheckpoints
from neurolm.training.runs import InstructRun
from neurolm.training.worker import run_key

STATUS: dict[State, Status] = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
"""What MLflow calls it."""
HEAD_IS_MISSED_AFTER_S = 2.0
"""A trial that fails is believed after so long."""


def trial_run(run: TuneRun, number: int, parameters: dict[str, Any]) -> InstructRun:
    """The Train run of a trial; it reads the sweep's stores and writes into the sweep's folder. Raises ConfigError."""
    places = {
        "out": str(run.sweep_folder.resolve()),
        "run_id": trial_name(number),
        "data.store": str(run.store.resolve()),
        "data.token_store": str(run.token_store.resolve()),
        "tracking.uri": run.tracking.at(run.out.resolve()).uri,
        "pretrained": str(run.pretrained_folder.resolve()),
    }
    return anchored(run.trial_run({**parameters, **places}))


def _refuse_lost_head() -> None:
    """A trial that ends because the cluster does has not failed: it goes on with the next start. Raises RuntimeError.

    Ray's processes notice the loss of the head one after another, within seconds.
    """
    time.sleep(HEAD_IS_MISSED_AFTER_S)
    here = ray.get_runtime_context().get_node_id()
    if not any(node["Alive"] for node in ray.nodes() if node["NodeID"] == here):
        raise RuntimeError("the Ray node of this job is lost; start the job again, and the sweep goes on")


class SweepDriver:
    """Stands between the course of the sweep and whoever runs its trials."""

    def __init__(self, run: TuneRun, course: Course, axis: BudgetAxis, key: str) -> None:
        self.key = key
        self.is_stopping = False
        self.failure: Exception | None = None
        self._run, self._course, self._axis = run, course, axis
        self._running: set[int] = set()
        self._bar: Bar | None = None
        for trial in course.state.trials:
            if trial.state is None:
                self._hear(trial)
        self._waiting = [trial.number for trial in course.state.unfinished]
        self.close_runs()

    def num_left(self) -> int:
        """Trials that have not ended."""
        return self._course.num_left

    def next(self) -> Trial | None:
        """The next trial to run: those first that were cut off."""
        if self.is_stopping:
            return None
        trial = self._course.state.trials[self._waiting.pop(0)] if self._waiting else self._course.new_trial()
        if trial is not None:
            self._running.add(trial.number)
        return trial

    def heard_of(self, number: int) -> None:
        """A trial has reported: it goes on, or is asked to stop, again if need be, since it may just have started."""
        trial = self._hear(self._course.state.trials[number])
        if trial.state is not None or self.is_stopping:
            self._ask_to_stop(number)
        self._show()

    def ended(self, number: int, how: str | None, reason: str) -> None:
        """A trial's run is over; None: its process died too often."""
        self._running.discard(number)
        trial = self._hear(self._course.state.trials[number])
        if how in (None, "failed"):
            _refuse_lost_head()
        if how is None:
            self._course.end(number, "failed", reason)
        elif how == "failed" or (how == "complete" and trial.kept is None):
            self._course.end(number, "failed", reason or "it ended without a validation")
        elif how == "complete":
            self._course.end(number, "complete")
        if trial.state is not None:
            self._close_run(trial)
        self._show()

    def stop(self) -> None:
        """Start no more trials; those that run are to be asked to stop (`ask_all_to_stop`)."""
        self.is_stopping = True

    def ask_all_to_stop(self) -> None:
        """Ask those that run to stop; to be repeated, since one that is only starting forgets it."""
        for number in list(self._running):
            self._ask_to_stop(number)

    @contextmanager
    def noting_failures(self) -> Iterator[None]:
        """Ray Tune would take an error here for the trial's own: stop, and let `_execute` raise it."""
        try:
            yield
        except Exception as error:
            self.failure = self.failure or error
            self.stop()

    def close_runs(self) -> None:
        """Say how trials ended in the runs of all of which it was not said yet, as after a kill."""
        for trial in self._course.state.trials:
            if trial.state is not None:
                self._close_run(trial)

    def close(self) -> None:
        """Leave the bar on the screen."""
        if self._bar is not None:
            self._bar.close()

    def _hear(self, trial: Trial) -> Trial:
        run = trial_run(self._run, trial.number, trial.parameters)
        recording = read_recording(run.folder)
        return self._course.hear(trial.number, points(recording, run, self._axis, self._run.directions))

    def _ask_to_stop(self, number: int) -> None:
        StopFlag(trial_run(self._run, number, self._course.state.trials[number].parameters)).set()

    def _close_run(self, trial: Trial) -> None:
        """Say in the trial's own run how it ended, once; also of one whose workers died or that never started."""
        assert trial.state is not None
        folder = self._run.sweep_folder / trial_name(trial.number)
        recording = read_recording(folder)
        if recording.is_told:
            return
        if trial.mistake is None:
            run = trial_run(self._run, trial.number, trial.parameters)
            key = run_key(run)
            if trial.state != "failed":
                RunCheckpoints(run.checkpoint_storage, run.name).clear()  # the model that it kept lies apart
        else:
            key = f"{folder}/impossible"
        place = self._run.tracking.at(self._run.out.resolve())
        tracker = start_run(place, folder=folder, name=folder.name, run_key=key, parent=self.key)
        if not recording.starts:
            tracker.params(trial.parameters)
        step = trial.points[-1].step if trial.points else 0
        told = {"trial/seconds": recording.seconds, "trial/starts": float(recording.starts)}
        told["trial/gpu_hours"] = recording.seconds / 3600 * self._num_gpus
        if trial.points:
            told["trial/instruction_tokens"] = float(trial.points[-1].budget)
        if trial.kept is not None:
            told["trial/best_value"] = self._course.shown(trial.kept)
        tracker.metrics(step, told)
        tags = {STATE_TAG: trial.state, "trial_origin": trial.origin}
        tracker.tags(tags | ({"trial_reason": trial.reason} if trial.reason else {}))
        tracker.close(STATUS[trial.state])

    @property
    def _num_gpus(self) -> float:
        return self._run.sweep.workers_per_trial * self._run.resources.gpus_per_worker

    def _show(self) -> None:
        """How far the sweep is: trials that ended, parts of those that run, the best value so far."""
        self._bar = self._bar or Bar("tune")
        trials, total = self._course.state.trials, self._run.sweep.num_trials
        ended = sum(trial.state is not None for trial in trials)
        parts = [one.points[-1].budget / one.full_budget for one in trials if one.state is None and one.points]
        numbers = {"trials ended": f"{ended}/{total}"}
        if values := [self._course.shown(trial.kept) for trial in trials if trial.kept is not None]:
            best = max(values) if "max" in self._run.directions.values() else min(values)
            numbers["best score"] = f"{best:.3f}"
        self._bar.show((ended + sum(parts)) / total, numbers)
