"""The sweep of the instruction tuning: Optuna proposes trials, Ray Tune runs them, each as a Ray Train run.

Trials share the stores and the pre-trained model; the test split cannot be read here (the store is sealed). Ray Tune
keeps nothing that matters: what has happened is in the sweep's own record (`neurolm.distributed.sweep_log`), and every
start hands Ray Tune what is left to do. A trial that was cut off goes on at its checkpoint, with its parameters.
"""

import functools
import json
import math
import shutil
import threading
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.search import Searcher

from neurolm.config import UserError, as_dict, as_yaml, digest, flatten
from neurolm.distributed.pruning import look_budgets
from neurolm.distributed.sweep_config import UNSEARCHED, TuneRun, check_space
from neurolm.distributed.sweep_course import Course
from neurolm.distributed.sweep_driver import STATUS, SweepDriver, trial_run
from neurolm.distributed.sweep_log import sole_driver, trial_name
from neurolm.distributed.sweep_summary import CONFIG, metric_in_words, summary
from neurolm.distributed.train import anchored, train
from neurolm.distributed.trial_budget import BudgetAxis, read_recording
from neurolm.distributed.warm_start import given_first, learnt
from neurolm.reports.sweep import SweepRecord
from neurolm.tracking import start_run
from neurolm.training.checkpoint import copy_model
from neurolm.training.leakage import check_leakage
from neurolm.training.stopping import Stopped, stop_signals
from neurolm.training.training_run import without_raw_places
from neurolm.training.worker import ResumeError, made_from

RECORD = "sweep.json"
"""Written when a sweep is over; a finished sweep is not run again."""


class SweepStopped(Stopped):
    """A sweep ended on request; its trials wrote their checkpoints."""

    def __init__(self, num_ended: int, num_trials: int) -> None:
        Exception.__init__(
            self,
            f"stopped on request after {num_ended} of {num_trials} trials; checkpoints are written, and the same "
            "command again goes on from there",
        )


def sweep(run: TuneRun) -> SweepRecord:
    """Run or resume the sweep; the best trial's model becomes ``instruct/model`` in ``out``.

    Raises:
        UserError: something is wrong with settings, data or the model to start from, or no trial finished.
        Stopped: this process was asked to stop (SIGTERM, SIGINT), and the trials have.
    """
    run = anchored(run)
    check_space(run)
    check_leakage(run, run.data.allow_leakage)
    folder = run.sweep_folder
    with sole_driver(folder):
        _refuse_other_sweep(run, folder)
        if (folder / RECORD).is_file():
            return SweepRecord.load(folder / RECORD)
        return _sweep(run, folder)


def _sweep(run: TuneRun, folder: Path) -> SweepRecord:
    axis = BudgetAxis.of(run.instruct_run())
    full_budget = axis.full(run.most_epochs)
    looks = look_budgets(run.sweep.pruning, full_budget, axis.full(run.epochs) / run.validations)
    course = Course(
        folder,
        run.plan,
        run.sweep.pruning,
        looks,
        lambda parameters: axis.full(trial_run(run, 0, dict(parameters)).epochs),
    )
    if course.state.given is None:
        course.begin(given_first(run), learnt(run, metric_in_words(run), full_budget), run.keep)
    (folder / CONFIG).write_text(as_yaml(without_raw_places(run)))
    tracker = start_run(run.tracking, folder=folder, name="sweep", run_key=run.key, wait_s=30.0)
    tracker.params(
        {name: value for name, value in flatten(as_dict(without_raw_places(run))).items() if value is not None}
    )
    driver = SweepDriver(run, course, axis, run.key)
    try:
        if driver.num_left():
            _execute(run, driver)
        driver.close_runs()
    except BaseException as error:
        tracker.close("KILLED" if isinstance(error, Stopped | KeyboardInterrupt) else "FAILED")
        raise
    recordings = [read_recording(folder / trial_name(trial.number)) for trial in course.state.trials]
    record = summary(run, course, full_budget, recordings)
    best = record.best
    if best is None:
        tracker.close("FAILED")
        reasons = "; ".join(sorted({trial.reason or trial.state for trial in record.trials}))
        raise UserError(f"{folder}: no trial of {len(record.trials)} finished: {reasons}")
    (run.out / "best.yaml").write_text(as_yaml(without_raw_places(run.trial_run(best.parameters))))
    copy_model(folder / trial_name(best.number) / "model", run.out / "instruct" / "model")
    told = {state: float(record.count(state)) for state in STATUS} | {
        "best_score": best.best_value or 0.0,
        "num_trials": float(len(record.trials)),
        "cpu_hours": sum(trial.cpu_hours or 0.0 for trial in record.trials),
        "gpu_hours": sum(trial.gpu_hours or 0.0 for trial in record.trials),
    }
    tracker.metrics(len(record.trials), told)
    tracker.tags({"best_trial": trial_name(best.number)})
    tracker.artifact(run.out / "best.yaml")
    tracker.close("FINISHED")
    record.save(folder / RECORD)
    return record


def _execute(run: TuneRun, driver: SweepDriver) -> None:
    """Let Ray Tune run what is left. Raises SweepStopped."""
    experiment = run.sweep_folder / "ray_tune"
    shutil.rmtree(experiment, ignore_errors=True)  # an earlier start's; nothing in it is needed
    tuner = tune.Tuner(
        tune.with_resources(functools.partial(_trial, run=run, parent=driver.key), {"CPU": 0.01}),
        tune_config=tune.TuneConfig(
            search_alg=_Trials(driver),
            num_samples=driver.num_left(),
            max_concurrent_trials=run.sweep.concurrent_trials or room(run),
            trial_dirname_creator=lambda trial: f"{trial_name(trial.config['trial'])}-{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name=experiment.name,
            storage_path=str(run.sweep_folder),
            failure_config=tune.FailureConfig(max_failures=run.survival.max_failures),
            verbose=0,
        ),
    )
    failures: list[BaseException] = []

    def fit() -> None:
        try:
            tuner.fit()
        except BaseException as error:
            failures.append(error)

    # In a thread, because Ray Tune would take SIGINT over and end the trials where they stand.
    waiting = threading.Thread(target=fit, daemon=True)
    with stop_signals(driver.stop):
        waiting.start()
        while waiting.is_alive():
            waiting.join(1.0)
            if driver.is_stopping:
                driver.ask_all_to_stop()
    driver.close()
    if driver.failure is not None or failures:
        raise driver.failure or failures[0]
    if driver.is_stopping:
        raise SweepStopped(run.sweep.num_trials - driver.num_left(), run.sweep.num_trials)
    assert not driver.num_left(), "Ray Tune ended before the sweep did"


def _trial(config: dict[str, Any], run: TuneRun, parent: str) -> None:
    """One trial: a Train run whose reports go to Tune, and a last word of how it ended."""
    trial = trial_run(run, config["trial"], json.loads(config["parameters"]))
    ended, reason = "complete", ""
    try:
        train(trial, parent=parent, callbacks=[TuneReportCallback()], show_progress=False)
    except Stopped:
        ended = "stopped"
    except UserError as error:
        ended, reason = "failed", str(error)
    except Exception as error:  # whatever it is, it is this trial's end and not the sweep's
        ended, reason = "failed", f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[-1]}"
    tune.report({"ended": ended, "reason": reason})


class _Trials(Searcher):
    """Gives Ray Tune the sweep's trials and tells the sweep what became of them; keeps no state of its own."""

    def __init__(self, driver: SweepDriver) -> None:
        super().__init__()
        self._driver = driver
        self._numbers: dict[str, int] = {}
        self._last_words: dict[int, tuple[str, str]] = {}

    def suggest(self, trial_id: str) -> Any:
        """The next trial as a Tune config."""
        trial = None
        with self._driver.noting_failures():
            trial = self._driver.next()
        if trial is None:
            return Searcher.FINISHED
        self._numbers[trial_id] = trial.number
        return {"trial": trial.number, "parameters": json.dumps(trial.parameters)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A trial has validated, or says how it ended."""
        number = self._numbers[trial_id]
        if "ended" in result:
            self._last_words[number] = result["ended"], result["reason"]
            return
        with self._driver.noting_failures():
            self._driver.heard_of(number)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial's process has ended."""
        number = self._numbers[trial_id]
        died = None, "its process died more often than survival.max_failures allows"
        with self._driver.noting_failures():
            self._driver.ended(number, *self._last_words.get(number, died))

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


def room(run: TuneRun) -> int:
    """How many trials the cluster has room for at the same time, at least one."""
    wanted = {
        "CPU": run.resources.cpus_per_worker + run.resources.reader_cpus,
        "GPU": run.resources.gpus_per_worker,
    }
    there = ray.cluster_resources()
    return max(
        1,
        min(
            math.floor(there.get(name, 0.0) / (amount * run.sweep.workers_per_trial))
            for name, amount in wanted.items()
            if amount
        ),
    )


def _refuse_other_sweep(run: TuneRun, folder: Path) -> None:
    """A folder holds one sweep. Raises ResumeError where it was begun with other settings, data or model."""
    settings = as_dict(run.sweep)
    for name in UNSEARCHED:
        settings.pop(name)
    origin = made_from(run.instruct_run()) | {"sweep": digest(settings)}
    path = folder / "made_from.json"
    begun: dict[str, str] = json.loads(path.read_text()) if path.is_file() else origin
    if changed := [name for name in origin if begun.get(name) != origin[name]]:
        raise ResumeError(
            f"{folder}: this sweep was begun with another {' and another '.join(changed)}; use another out, or delete "
            "the folder to start again"
        )
    path.write_text(json.dumps(origin, indent=1))
