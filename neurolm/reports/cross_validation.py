"""Cross-validation results: the folds of every seed pooled, the seeds' means, and every run listed."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neurolm.config import digest
from neurolm.evaluation.comparison import compare_means
from neurolm.evaluation.details import accuracy_by_subject
from neurolm.evaluation.pooling import INNER_FOLDS, OUT_OF_FOLD, pool
from neurolm.evaluation.predictions import Predictions
from neurolm.reports.evaluated import Evaluated, read_evaluated, write_evaluated
from neurolm.reports.results import ResultsError, save_results, write_whole
from neurolm.reports.seeds import over_seeds

RUN = "fold_run.json"
"""Written into a run's folder when it was evaluated; such a run is not run again."""


@dataclass(frozen=True)
class FoldRun:
    """One fold with one seed, finished."""

    fold: int
    seed: int
    folder: str
    """Where its results lie, relative to the cross-validation's folder."""
    seconds: float
    config_digest: str
    data_digest: str
    git_commit: str | None
    test_openings: int
    """How often this fold's test windows had been opened when it was evaluated, this time included."""
    scores: dict[str, dict[str, Any]]
    """Task to ``balanced_accuracy``, ``auroc``, ``num_windows`` and ``num_subjects`` of its test windows."""

    @classmethod
    def of(cls, out: Path, folder: Path, fold: int, seed: int, seconds: float) -> "FoldRun":
        """The run whose results lie in a folder below ``out``."""
        results = read_evaluated(folder).results
        names = ("balanced_accuracy", "auroc", "num_windows", "num_subjects")
        return cls(
            fold=fold,
            seed=seed,
            folder=str(folder.relative_to(out)),
            seconds=seconds,
            scores={task: {name: found[name] for name in names} for task, found in results["tasks"].items()},
            **{name: results[name] for name in ("config_digest", "data_digest", "git_commit", "test_openings")},
        )

    def save(self, out: Path) -> None:
        """Record that the run is finished."""
        write_whole(out / self.folder / RUN, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "FoldRun | None":
        """The finished run in a folder; None if there is none."""
        path = folder / RUN
        return cls(**json.loads(path.read_text())) if path.is_file() else None


@dataclass(frozen=True)
class Plan:
    """What the results of a cross-validation have to say about it."""

    out: Path
    num_folds: int
    within: str
    config_digest: str
    """Of all settings of all steps, but for folds, seeds, places and baselines."""
    num_windows: dict[str, int]
    """Task to the windows of its data set, over all splits of a fold."""

    @property
    def split(self) -> str:
        """What pooled answers are called."""
        return OUT_OF_FOLD if self.within == "all" else INNER_FOLDS


def pool_runs(plan: Plan, runs: Sequence[FoldRun], target: Path, below: str = ".") -> list[Evaluated]:
    """Pool the folds of every seed into ``target/seed-N``, a folder as evaluate leaves it.

    Args:
        plan: the cross-validation.
        runs: all its runs.
        target: folder of the pooled results.
        below: where a run's results lie, relative to the run's folder; a baseline's lie in ``baselines/NAME``.

    Raises:
        UserError: folds do not make a whole.
    """
    pooled = []
    for seed in dict.fromkeys(run.seed for run in runs):
        folders = [plan.out / run.folder / below for run in runs if run.seed == seed]
        pooled.append(_pool_seed(plan, [read_evaluated(folder) for folder in folders], seed, target / f"seed-{seed}"))
    return pooled


def _pool_seed(plan: Plan, folds: Sequence[Evaluated], seed: int, target: Path) -> Evaluated:
    tasks = dict.fromkeys(name for fold in folds for name in fold.predictions)
    found: dict[str, Predictions] = {}
    for name in tasks:
        parts = [fold.predictions[name] for fold in folds if name in fold.predictions]
        found[name] = pool(parts, split=plan.split, num_windows=plan.num_windows[name])
    commits = {fold.results["git_commit"] for fold in folds}
    return write_evaluated(
        target,
        found,
        config_digest=plan.config_digest,
        data_digest=digest(sorted(fold.results["data_digest"] for fold in folds)),
        git_commit=commits.pop() if len(commits) == 1 else None,
        seed=seed,
        test_openings=max(fold.results["test_openings"] for fold in folds),
        leakage=_leakage([fold.results.get("leakage") for fold in folds]),
    )


def _leakage(folds: Iterable[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """What was allowed in any fold, added up; unknown where it is in one of them."""
    allowed = [one for one in folds if one]
    if not allowed:
        return None
    counts = {}
    for name in ("num_subjects", "num_recordings"):
        numbers = [one[name] for one in allowed]
        counts[name] = None if None in numbers else sum(numbers)
    return {"reason": "; ".join(dict.fromkeys(one["reason"] for one in allowed)), **counts}


def cross_validation_results(
    plan: Plan,
    runs: Sequence[FoldRun],
    pooled: Sequence[Evaluated],
    baselines: Mapping[str, Sequence[Evaluated]],
    openings: int,
) -> dict[str, Any]:
    """What ``results.json`` of a cross-validation holds: that of several seeds, and ``cross_validation``.

    ``openings`` is how often the folds' test windows were opened so far, the most of any fold.
    """
    results = _over(pooled) | {"test_openings": openings, "leakage": pooled[0].results["leakage"]}
    results["cross_validation"] = {
        "folds": plan.num_folds,
        "within": plan.within,
        "runs": [asdict(run) for run in runs],
        "subjects": {name: _by_subject([one.predictions[name] for one in pooled]) for name in results["tasks"]},
        "baselines": {name: _beside(pooled, own) for name, own in baselines.items()},
    }
    save_results(plan.out / "results.json", results)
    return results


def _over(runs: Sequence[Evaluated]) -> dict[str, Any]:
    """Results over seeds; of one seed its own, in the same fields."""
    if len(runs) > 1:
        return over_seeds(runs)
    return dict(runs[0].results) | {"seeds": [runs[0].results["seed"]]}


def _by_subject(runs: Sequence[Predictions]) -> dict[str, dict[str, float]]:
    """Balanced accuracy of each subject alone, the mean over seeds, and its windows."""
    each = [accuracy_by_subject(one) for one in runs]
    means = np.mean([accuracy for _, accuracy, _ in each], axis=0)
    names, _, counts = each[0]
    windows = counts.sum(axis=(1, 2))
    return {
        name: {"balanced_accuracy": float(mean), "num_windows": int(number)}
        for name, mean, number in zip(names, means, windows, strict=True)
    }


def _beside(ours: Sequence[Evaluated], theirs: Sequence[Evaluated]) -> dict[str, Any]:
    """A baseline's scores, and ours minus its, paired by subject."""
    return {
        "tasks": _over(theirs)["tasks"],
        "ours_minus_theirs": {
            name: asdict(
                compare_means([one.predictions[name] for one in theirs], [one.predictions[name] for one in ours])
            )
            for name in theirs[0].predictions
            if name in ours[0].predictions
        },
    }


def read_seeds(out: Path) -> list[Evaluated]:
    """The pooled seeds of a cross-validation's folder; of another folder of results, it alone.

    Raises:
        ResultsError, PredictionsError: what should be there cannot be read.
    """
    results_path = out / "results.json"
    try:
        results = json.loads(results_path.read_text())
    except (OSError, ValueError) as error:
        raise ResultsError(f"{results_path}: no readable results ({error})") from None
    if isinstance(results, dict) and "cross_validation" in results:
        return [read_evaluated(out / f"seed-{seed}") for seed in results["seeds"]]
    return [read_evaluated(out)]
