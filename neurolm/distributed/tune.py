"""Ray Tune + Optuna: the sweep of the instruction tuning over any dotted setting.

A trial is a Ray Train run of `InstructRun` with some settings replaced; trials share the stores and the pre-trained
model. The objective is the mean validation score over tasks; the test split cannot be read here (the store is sealed).
"""

import functools
import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from neurolm.config import UserError, as_dict, as_yaml, digest, flatten
from neurolm.distributed.sweep_config import Distribution, TuneRun, check_space
from neurolm.distributed.train import anchored, train
from neurolm.progress import Bar
from neurolm.reports.sweep import State, SweepRecord, TrialRecord
from neurolm.tracking import Status, Tracker, start_run
from neurolm.training.leakage import check_leakage
from neurolm.training.runs import InstructRun, without_raw_places
from neurolm.training.worker import ResumeError, made_from, run_key

logger = logging.getLogger(__name__)

SELECTIONS = {"auroc": "AUROC", "balanced_accuracy": "balanced accuracy"}
"""Names for people of the metrics that may rank trials."""
RECORD = "sweep.json"
"""Written when a sweep is over; a finished sweep is not run again."""


def sweep(run: TuneRun) -> SweepRecord:
    """Run or resume the sweep; the best trial's model becomes ``instruct/model`` in ``out``. Raises UserError."""
    run = anchored(run)
    check_space(run)
    check_leakage(run, run.data.allow_leakage)
    folder = run.sweep_folder
    folder.mkdir(parents=True, exist_ok=True)
    _refuse_other_sweep(run, folder)
    if (folder / RECORD).is_file():
        return SweepRecord.load(folder / RECORD)
    key = f"{folder}/{digest(run)}"
    tracker = start_run(run.tracking, folder=folder, name="sweep", run_key=key, wait_s=30.0)
    tracker.params(
        {name: value for name, value in flatten(as_dict(without_raw_places(run))).items() if value is not None}
    )
    trainable = tune.with_resources(functools.partial(_trial, run=run, parent=key), {"CPU": 0.01})
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    tuner = _tuner(run, folder, trainable)
    results = tuner.fit()
    run_ids = [Path(result.path).name for result in results]
    trials = [_trial_record(number, result, run) for number, result in enumerate(results)]
    _close_trial_runs(run, key, dict(zip(run_ids, trials, strict=True)))
    record = SweepRecord(
        metric=f"validation {SELECTIONS[run.selection]}, mean over {', '.join(run.tasks)}",
        space={name: distribution.describe() for name, distribution in run.sweep.space.items()},
        trials=trials,
        importances=_importances(folder),
        num_validations=run.validations,
    )
    finished = [trial for trial in trials if trial.best_value is not None and trial.state == "complete"]
    if not finished:
        tracker.close("FAILED")
        reasons = "; ".join(sorted({trial.reason or trial.state for trial in trials}))
        raise UserError(f"{folder}: no trial of {len(trials)} finished: {reasons}")
    best = max(finished, key=lambda trial: trial.best_value or 0.0)
    chosen = without_raw_places(run.instruct_run(best.parameters))
    (run.out / "best.yaml").write_text(as_yaml(chosen))
    _take(folder / run_ids[best.number] / "model", run.out / "instruct" / "model")
    tracker.metrics(len(trials), {"best_score": best.best_value or 0.0, "num_trials": float(len(trials))})
    tracker.artifact(run.out / "best.yaml")
    tracker.close("FINISHED")
    record.save(folder / RECORD)
    return record


def _refuse_other_sweep(run: TuneRun, folder: Path) -> None:
    """A folder holds one sweep. Raises ResumeError where it was begun with other settings, data or model."""
    origin = made_from(run.instruct_run()) | {"sweep": digest(run.sweep)}
    path = folder / "made_from.json"
    begun: dict[str, str] = json.loads(path.read_text()) if path.is_file() else origin
    if changed := [name for name in origin if begun.get(name) != origin[name]]:
        raise ResumeError(
            f"{folder}: this sweep was begun with another {' and another '.join(changed)}; use another out, or delete "
            "the folder to start again"
        )
    path.write_text(json.dumps(origin, indent=1))


def _tuner(run: TuneRun, folder: Path, trainable: Callable[..., Any]) -> tune.Tuner:
    """A new sweep, or the interrupted one of this folder."""
    experiment = folder / "ray_tune"
    if tune.Tuner.can_restore(str(experiment)):
        return tune.Tuner.restore(str(experiment), trainable, resume_unfinished=True, restart_errored=False)
    study = OptunaSearch(
        space=functools.partial(_suggest, space=run.sweep.space),
        metric="score",
        mode="max",
        study_name="sweep",
        storage=_storage(folder),
        points_to_evaluate=[dict(point) for point in run.sweep.first] or None,
        seed=run.seed,
    )
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            search_alg=study,
            num_samples=run.sweep.num_trials,
            max_concurrent_trials=run.sweep.concurrent_trials,
            trial_dirname_creator=lambda trial: f"trial-{trial.trial_id}",
            scheduler=ASHAScheduler(
                time_attr="training_iteration",
                max_t=run.validations,
                grace_period=min(run.sweep.grace_validations, run.validations),
                reduction_factor=run.sweep.reduction_factor,
            ),
        ),
        run_config=tune.RunConfig(
            name="ray_tune",
            storage_path=str(folder),
            verbose=0,
            callbacks=[_SweepBar(run.sweep.num_trials, run.validations)],
        ),
    )


class _SweepBar(tune.Callback):
    """Draws how far the sweep is: trials that ended, parts of those that run, the best score so far."""

    def __init__(self, num_trials: int, validations: int) -> None:
        self._num_trials, self._validations = num_trials, validations
        self._bar: Bar | None = None
        self._best: float | None = None

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """A trial has validated."""
        score = float(result.get("score", float("-inf")))
        self._best = score if self._best is None else max(self._best, score)
        self._show(trials)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """A trial has ended, at its full budget or stopped by the scheduler."""
        self._show(trials)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """A trial has failed."""
        self._show(trials)

    def on_experiment_end(self, trials: list[Any], **_: Any) -> None:
        """Leave the bar on the screen."""
        self._show(trials)
        if self._bar is not None:
            self._bar.close()

    def _show(self, trials: list[Any]) -> None:
        self._bar = self._bar or Bar("tune")
        ended = [trial for trial in trials if trial.is_finished()]
        begun = sum((trial.last_result or {}).get("training_iteration", 0) for trial in trials if trial not in ended)
        numbers = {"trials ended": f"{len(ended)}/{self._num_trials}"}
        if self._best is not None:
            numbers["best score"] = f"{self._best:.3f}"
        self._bar.show((len(ended) + begun / self._validations) / self._num_trials, numbers)


def _storage(folder: Path) -> optuna.storages.RDBStorage:
    return optuna.storages.RDBStorage(f"sqlite:///{folder / 'optuna.db'}")


def _suggest(trial: Any, space: Mapping[str, Distribution]) -> None:
    for name, distribution in space.items():
        distribution.suggest(trial, name)


def _trial(settings: dict[str, Any], run: TuneRun, parent: str) -> None:
    """One trial: a Train run whose reports go to Tune."""
    run_id = f"trial-{tune.get_context().get_trial_id()}"
    train(_trial_run(run, run_id, settings), parent=parent, callbacks=[TuneReportCallback()], show_progress=False)


def _trial_run(run: TuneRun, run_id: str, settings: Mapping[str, Any]) -> InstructRun:
    places = {
        "out": str(run.sweep_folder.resolve()),
        "run_id": run_id,
        "data.store": str(run.store.resolve()),
        "data.token_store": str(run.token_store.resolve()),
        "tracking.uri": run.tracking.at(run.out.resolve()).uri,
        "pretrained": str(run.pretrained_folder.resolve()),
    }
    return run.instruct_run({**settings, **places})


def _trial_record(number: int, result: Any, run: TuneRun) -> TrialRecord:
    frame = result.metrics_dataframe
    curve: list[tuple[float, float]] = []
    seconds = 0.0
    if frame is not None and "score" in frame:
        curve = [
            (float(budget), float(score))
            for budget, score in zip(frame["training_iteration"], frame["score"], strict=True)
        ]
        seconds = float(frame["time_total_s"].iloc[-1])
    state: State
    if result.error is not None:
        state, reason = "failed", f"{type(result.error).__name__}: {str(result.error).strip().splitlines()[-1]}"
    elif len(curve) < run.validations:
        state, reason = "pruned", f"ASHA stopped it after validation {len(curve)} of {run.validations}"
    else:
        state, reason = "complete", None
    return TrialRecord(
        number=number,
        parameters=dict(result.config or {}),  # none where a trial could not even start
        state=state,
        reason=reason,
        curve=curve,
        best_value=max((score for _, score in curve), default=None),
        seconds=seconds,
    )


def _close_trial_runs(run: TuneRun, parent: str, trials: Mapping[str, TrialRecord]) -> None:
    """End the MLflow runs of trials whose workers were stopped by the scheduler or died."""
    status: dict[State, Status] = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
    for run_id, trial in trials.items():
        trial_run = _trial_run(run, run_id, trial.parameters)
        tracker: Tracker = start_run(
            trial_run.tracking, folder=trial_run.folder, name=trial_run.name, run_key=run_key(trial_run), parent=parent
        )
        tracker.tags({"trial_state": trial.state} | ({"trial_reason": trial.reason} if trial.reason else {}))
        tracker.close(status[trial.state])


def _importances(folder: Path) -> dict[str, float]:
    """How much each setting mattered to the score (PED-ANOVA); empty where there are too few trials to say."""
    study = optuna.load_study(study_name="sweep", storage=_storage(folder))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return {name: float(value) for name, value in optuna.importance.get_param_importances(study).items()}
    except (ValueError, RuntimeError) as error:
        logger.info("no importances: %s", error)
        return {}


def _take(source: Path, target: Path) -> None:
    """Copy a model folder, whole or not at all."""
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(source, aside)
    shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)
