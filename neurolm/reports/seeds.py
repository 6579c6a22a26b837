"""Several runs of one config that differ in their seed: their mean and how much seeds matter."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from neurolm.evaluation import bootstrap, metrics
from neurolm.evaluation.centring import centred_by_subject
from neurolm.evaluation.comparison import aligned
from neurolm.evaluation.predictions import Predictions, score
from neurolm.reports.evaluated import Evaluated
from neurolm.reports.results import ResultsError

SIZES = ("split", "num_windows", "num_recordings", "num_subjects")
SCORES = ("balanced_accuracy", "auroc", "auc_pr", "cohen_kappa", "weighted_f1", "invalid_answer_rate")


def over_seeds(runs: Sequence[Evaluated]) -> dict[str, Any]:
    """The results of runs with different seeds as ``results.json`` has them: means, each with its ``_sd``.

    An sd is of runs (n - 1), the interval is over subjects, of the mean over runs: the one says how much seeds matter,
    the other how much the choice of subjects does. What the runs do not have in common is null.

    Raises:
        ResultsError: seeds come twice, or data, tasks or windows are not the same.
    """
    first = runs[0]
    by_seed: dict[int, Evaluated] = {}
    for run in runs:
        if (twin := by_seed.setdefault(run.results["seed"], run)) is not run:
            raise ResultsError(
                f"{twin.out} and {run.out} have the same seed, {run.results['seed']}; give runs of different seeds"
            )
        if run.results["data_digest"] != first.results["data_digest"]:
            raise ResultsError(
                f"{first.out} and {run.out} were evaluated on different data (data_digest); a mean over seeds needs "
                "the same"
            )
        if run.predictions.keys() != first.predictions.keys():
            raise ResultsError(
                f"{first.out} has the tasks {', '.join(first.predictions)}, {run.out} {', '.join(run.predictions)}; "
                "a mean over seeds needs the same"
            )
    common = {
        name: value if all(run.results[name] == value for run in runs) else None
        for name, value in first.origin.items()
        if name in ("config_digest", "data_digest", "git_commit")
    }
    return {
        "schema": first.results["schema"],
        "tasks": {name: _task(name, runs) for name in first.predictions},
        **common,
        "seed": None,
        "seeds": list(by_seed),
        "test_openings": max(run.results["test_openings"] for run in runs),
        "runs": [{"config_digest": run.results["config_digest"], "seed": run.results["seed"]} for run in runs],
    }


def _task(name: str, runs: Sequence[Evaluated]) -> dict[str, Any]:
    tasks = [run.results["tasks"][name] for run in runs]
    found: dict[str, Any] = {field: tasks[0][field] for field in SIZES}
    for field in SCORES:
        values = [task[field] for task in tasks if task[field] is not None]
        is_known = len(values) == len(tasks)
        found[field] = float(np.mean(values)) if is_known else None
        found[f"{field}_sd"] = float(np.std(values, ddof=1)) if is_known else None
    found["balanced_accuracy_ci95"] = _interval([run.predictions[name] for run in runs])
    centred = [one for run in runs if (one := centred_by_subject(run.predictions[name])) is not None]
    if centred:
        scores = [score(one) for one in centred]
        found["centred_by_subject"] = {
            "balanced_accuracy": float(np.mean([one.balanced_accuracy for one in scores])),
            "balanced_accuracy_ci95": _interval(centred),
            "auroc": float(np.mean([one.auroc for one in scores if one.auroc is not None])),
        }
    return found


def _interval(predictions: Sequence[Predictions]) -> list[float] | None:
    """Of the mean over runs, when subjects are drawn with replacement, the same ones for all runs."""
    everyone = [aligned(predictions[0], one)[1] for one in predictions]
    names, owner = bootstrap.owners(everyone[0].subject)
    if len(names) < bootstrap.FEWEST_SUBJECTS:
        return None
    drawn = bootstrap.subject_draws(len(names))
    counts = (
        bootstrap.confusions_by_subject(owner, one.label_index, one.predicted, len(one.labels)) for one in everyone
    )
    accuracy = [metrics.balanced_accuracy(np.tensordot(drawn, each, axes=1)) for each in counts]
    ends = bootstrap.interval(np.mean(accuracy, axis=0))
    return None if ends is None else list(ends)
