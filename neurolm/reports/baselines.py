"""Baselines on the test split: all fitted first, the split opened once for all of them, and a table."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from neurolm.baselines.chosen_tasks import tasks_of_store
from neurolm.baselines.fitted import Fitted, predictions_of
from neurolm.baselines.networks import NETWORKS
from neurolm.baselines.prediction import fit_baseline
from neurolm.baselines.settings import BaselineName, BaselineRun
from neurolm.config import UserError, as_dict, digest
from neurolm.eeg.shards import Store, WindowIndex, open_test_split
from neurolm.evaluation.predictions import Predictions
from neurolm.progress import ProgressBar
from neurolm.reports.baseline_table import FACTS, FOLDER, BaselineTable, read_table
from neurolm.reports.evaluated import write_evaluated
from neurolm.reports.results import read_results, save_results, write_whole
from neurolm.text.asked import windows_of_task
from neurolm.text.instructions import Task
from neurolm.tracking import FILE_NAME, JsonlTracker, NullTracker, TeeTracker, Tracker
from neurolm.tracking.code import git_commit
from neurolm.training.leakage import allowed_reason, check_leakage


def run_baselines(run: BaselineRun, say: Callable[[str], None] = lambda line: None) -> BaselineTable:
    """Fit every system to every task, answer the test split and write what `evaluate` writes, for each in a folder.

    Args:
        run: settings.
        say: told a line after every fit.

    Returns:
        The table of all baselines in ``out`` that were evaluated on this data, also by earlier runs.

    Raises:
        UserError: no store, a system that cannot learn from it, leakage; nothing is opened then.
    """
    store = Store.open(run.store)
    train, val = store.index("train"), store.index("val")
    tasks = tasks_of_store(run.tasks, run.own_tasks, train, run.store)
    reasons = {name: _allowed_leakage(run, name) for name in run.baselines}
    leakage = {reason: check_leakage(run, reason) for reason in set(reasons.values())}
    fits = {
        name: {task.name: _fit(run, name, task, store, train, val, say) for task in tasks} for name in run.baselines
    }
    opening = open_test_split(store.digest, reason=f"baselines of {run.out}: {', '.join(run.baselines)}")
    opened = Store.open(run.store, opening=opening)
    test = opened.index("test")
    for name, by_task in fits.items():
        found = {task.name: _answers(by_task[task.name].fitted, task, opened, test) for task in tasks}
        folder = run.out / FOLDER / name
        write_evaluated(
            folder,
            found,
            config_digest=baseline_digest(run, name),
            data_digest=store.digest,
            git_commit=git_commit(),
            seed=run.seed,
            test_openings=opening.count,
            leakage=leakage[reasons[name]],
        )
        save_results(folder / FACTS, {task_name: fit.facts for task_name, fit in by_task.items()})
    table = read_table(run.out, store.digest)
    write_whole(run.out / FOLDER / "table.md", table.markdown())
    save_results(run.out / FOLDER / "table.json", table.as_dict())
    return table


def baseline_digest(run: BaselineRun, name: BaselineName) -> str:
    """A digest of what a baseline's fit depends on beside the data: its own settings and the seed."""
    own: dict[str, Any] = {"baseline": name, "seed": run.seed}
    if name in NETWORKS or name == "random_neurolm":
        own["training"] = as_dict(run.training_for(name))
    if name == "random_neurolm":
        own["losses"] = as_dict(run.losses)
    return digest(own)


def unanswered(run: BaselineRun, data_digest: str) -> tuple[BaselineName, ...]:
    """The baselines of ``run`` that have no results in its folder by these settings on these data."""

    def is_answered(name: BaselineName) -> bool:
        path = run.out / FOLDER / name / "results.json"
        if not path.is_file():
            return False
        found = read_results(path)
        return (found["config_digest"], found["data_digest"]) == (baseline_digest(run, name), data_digest)

    return tuple(name for name in run.baselines if not is_answered(name))


def _allowed_leakage(run: BaselineRun, name: BaselineName) -> str | None:
    """Why training data may share people or signals with the test split; the tokenizer of a probe has seen data too."""
    folder = run.tokenizer_folder
    has_seen = name == "linear_probe" and (folder / "config.yaml").is_file()
    return allowed_reason(run.data.allow_leakage, folder if has_seen else None)


@dataclass(frozen=True)
class _Fit:
    fitted: Fitted
    facts: dict[str, Any]


def _fit(
    run: BaselineRun,
    name: BaselineName,
    task: Task,
    store: Store,
    train: WindowIndex,
    val: WindowIndex,
    say: Callable[[str], None],
) -> _Fit:
    mine = [windows_of_task(index, task) for index in (train, val)]
    tracker: Tracker = NullTracker()
    if name in NETWORKS or name == "random_neurolm":
        folder = run.out / FOLDER / name / "training" / task.name
        shutil.rmtree(folder, ignore_errors=True)  # the record of an earlier fit
        key = f"{run.out.resolve()}/{FOLDER}/{name}/{task.name}/{baseline_digest(run, name)}"
        tracker = TeeTracker(
            [JsonlTracker(folder / FILE_NAME, run_key=key, name=f"{name} {task.name}"), ProgressBar(name)]
        )
    started = time.perf_counter()
    try:
        fitted = fit_baseline(run, name, task, store, *mine, tracker=tracker)
    except BaseException:
        tracker.close("FAILED")
        raise
    tracker.close("FINISHED")
    seconds = time.perf_counter() - started
    told = "" if fitted.validation_score is None else f"  validation {fitted.validation_score:.3f}"
    say(f"{name}  {task.name}: fitted in {seconds:.0f} s{told}")
    return _Fit(
        fitted,
        {
            "num_parameters": fitted.num_parameters,
            "validation_score": fitted.validation_score,
            "seconds": round(seconds, 1),
            "num_classes": len(task.answers),
        },
    )


def _answers(fitted: Fitted, task: Task, store: Store, test: WindowIndex) -> Predictions:
    mine = windows_of_task(test, task)
    if not len(mine):
        raise UserError(f"{store.path}: no test windows for task {task.name}; give the split at least one test subject")
    return predictions_of(fitted, task, store, mine, split="test")
