"""A sweep that has ended, as the record that pages and people read."""

from collections.abc import Sequence
from typing import Literal

from neurolm.distributed.search_space import words
from neurolm.distributed.study import importances
from neurolm.distributed.sweep_config import TuneRun
from neurolm.distributed.sweep_course import Course
from neurolm.distributed.sweep_log import Trial
from neurolm.distributed.trial_budget import TrialRecording
from neurolm.reports.sweep import SweepRecord, TrialRecord

SELECTIONS = {"auroc": "AUROC", "balanced_accuracy": "balanced accuracy"}
"""Names for people of the metrics that may rank trials."""


def metric_in_words(run: TuneRun) -> str:
    """What the curves and the best values show."""
    if run.sweep.objective in ("score", "tasks"):
        return f"validation {SELECTIONS[run.selection]}, mean over {', '.join(run.tasks)}"
    return f"validation {run.sweep.objective}"


def summary(
    run: TuneRun, course: Course, full_budget: int, looks: Sequence[int], recordings: Sequence[TrialRecording]
) -> SweepRecord:
    """The record; ``recordings`` are the trials' own, in order."""
    mode: Literal["max", "min"] = "max" if len(run.directions) > 1 else run.sweep.direction
    return SweepRecord(
        metric=metric_in_words(run),
        space=words(run.sweep.space),
        trials=[_trial(run, course, *pair) for pair in zip(course.state.trials, recordings, strict=True)],
        importances=importances(run.plan, course.state),
        num_validations=run.validations,
        budget_unit="instruction token",
        full_budget=float(full_budget),
        mode=mode,
        directions=dict(run.directions),
        sampler=run.sweep.sampler.describe(run.seed),
        pruner=run.sweep.pruning.describe(looks),
    )


def _trial(run: TuneRun, course: Course, trial: Trial, recording: TrialRecording) -> TrialRecord:
    assert trial.state is not None, f"trial {trial.number} has not ended"
    hours = recording.seconds / 3600 * run.sweep.workers_per_trial
    kept = trial.kept
    return TrialRecord(
        number=trial.number,
        parameters=trial.parameters,
        state=trial.state,
        reason=trial.reason,
        curve=[(point.budget, course.shown(point)) for point in trial.points],
        best_value=None if kept is None else course.shown(kept),
        seconds=recording.seconds if recording.starts else None,
        task_curves={
            task: [(point.budget, point.tasks[task]) for point in trial.points] for task in run.tasks if trial.points
        },
        objectives={} if kept is None else kept.objectives,
        rungs=course.rungs(trial),
        starts=recording.starts,
        cpu_hours=hours * (run.resources.cpus_per_worker + run.resources.reader_cpus),
        gpu_hours=hours * run.resources.gpus_per_worker,
        origin=trial.origin,
    )
