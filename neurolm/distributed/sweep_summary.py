"""A sweep as the record that pages and people read; one that has not ended, or was killed, from what it has written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from neurolm.config import UserError, load
from neurolm.distributed.pruning import look_budgets
from neurolm.distributed.search_space import words
from neurolm.distributed.study import importances
from neurolm.distributed.sweep_config import TuneRun
from neurolm.distributed.sweep_log import FILE_NAME, SweepState, Trial, read_events, trial_name
from neurolm.distributed.sweep_view import SweepView
from neurolm.distributed.trial_budget import TrialRecording, read_recording
from neurolm.reports.sweep import SweepRecord, TrialRecord

SELECTIONS = {"auroc": "AUROC", "balanced_accuracy": "balanced accuracy"}
"""Names for people of the metrics that may rank trials."""

CONFIG = "config.yaml"
"""The sweep's settings in its folder."""


def metric_in_words(run: TuneRun) -> str:
    """What the curves and the best values show."""
    when = " at the end" if run.keep == "final" else ""
    if run.sweep.objective in ("score", "tasks"):
        own = any(task.metric for task in run.asked_tasks)
        return f"validation {'score' if own else SELECTIONS[run.selection]}{when}, mean over {', '.join(run.tasks)}"
    return f"validation {run.sweep.objective}{when}"


def summary(run: TuneRun, view: SweepView, full_budget: int, recordings: Sequence[TrialRecording]) -> SweepRecord:
    """The record; ``recordings`` are the trials' own, in order."""
    mode: Literal["max", "min"] = "max" if len(run.directions) > 1 else run.sweep.direction
    return SweepRecord(
        metric=metric_in_words(run),
        space=words(run.sweep.space),
        trials=[_trial(run, view, *pair) for pair in zip(view.state.trials, recordings, strict=True)],
        importances=importances(run.plan, view.state),
        num_validations=run.validations,
        budget_unit="instruction token",
        full_budget=float(full_budget),
        mode=mode,
        directions=dict(run.directions),
        sampler=run.sweep.sampler.describe(run.seed),
        pruner=run.sweep.pruning.describe(view.looks),
        is_finished=len(view.state.trials) == run.sweep.num_trials and not view.state.unfinished,
    )


def _trial(run: TuneRun, view: SweepView, trial: Trial, recording: TrialRecording) -> TrialRecord:
    hours = recording.seconds / 3600 * run.sweep.workers_per_trial
    kept = trial.kept
    return TrialRecord(
        number=trial.number,
        parameters=trial.parameters,
        state=trial.state or "running",
        reason=trial.reason,
        curve=[(point.budget, view.shown(point)) for point in trial.points],
        best_value=None if kept is None else view.shown(kept),
        kept_at=None if kept is None else float(kept.budget),
        seconds=recording.seconds if recording.starts else None,
        task_curves={
            task: [(point.budget, point.tasks[task]) for point in trial.points] for task in run.tasks if trial.points
        },
        objectives={} if kept is None else kept.objectives,
        rungs=view.rungs(trial),
        starts=recording.starts,
        cpu_hours=hours * (run.resources.cpus_per_worker + run.resources.reader_cpus),
        gpu_hours=hours * run.resources.gpus_per_worker,
        origin=trial.origin,
        full_budget=float(trial.full_budget) or None,
    )


def read_sweep(folder: Path) -> SweepRecord:
    """The record of a sweep from its folder at any time, without touching it.

    Raises:
        UserError: no sweep has begun there.
    """
    path = folder / CONFIG
    if not path.is_file() or not (folder / FILE_NAME).is_file():
        raise UserError(
            f"{folder}: no sweep has begun here; expected {CONFIG} and {FILE_NAME}, which ray_jobs/tune.py writes"
        )
    run = load(TuneRun, path)
    state = SweepState.of(read_events(folder / FILE_NAME))
    full_budget = max((trial.full_budget for trial in state.trials), default=0)
    interval = full_budget * run.epochs / run.most_epochs / run.validations
    view = SweepView(run.plan, look_budgets(run.sweep.pruning, full_budget, interval) if full_budget else [], state)
    return summary(run, view, full_budget, [read_recording(folder / trial_name(one.number)) for one in state.trials])
