"""A folder that was evaluated: its ``results.json`` and the answers behind it, without a model or a store."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neurolm.evaluation.details import details
from neurolm.evaluation.predictions import Predictions, score
from neurolm.reports.evaluation_page import write_evaluation_page
from neurolm.reports.results import ResultsError, read_results, write_results


@dataclass(frozen=True)
class Evaluated:
    """What `evaluate` left in a folder."""

    out: Path
    results: dict[str, Any]
    """What ``results.json`` holds."""
    predictions: dict[str, Predictions]
    """The answers of every task of the results."""

    @property
    def results_path(self) -> Path:
        """The results file."""
        return self.out / "results.json"

    @property
    def origin(self) -> dict[str, Any]:
        """Where the numbers come from."""
        names = ("config_digest", "data_digest", "git_commit", "seed", "test_openings")
        return {name: self.results.get(name) for name in names}


def read_evaluated(out: Path) -> Evaluated:
    """Read a folder of results; nothing in it is an opening of the test split.

    Raises:
        ResultsError: there are no results, or they were not computed from the answers that lie beside them.
        PredictionsError: a task's answers cannot be read.
    """
    results = read_results(out / "results.json")
    predictions = {name: Predictions.load(out / "predictions" / f"{name}.parquet") for name in results["tasks"]}
    for name, answers in predictions.items():
        task = results["tasks"][name]
        found, wanted = (len(answers), answers.split), (task["num_windows"], task["split"])
        if found != wanted:
            raise ResultsError(
                f"{out}: results.json has {wanted[0]} windows of split {wanted[1]!r} for task {name}, "
                f"predictions/{name}.parquet {found[0]} of {found[1]!r}; they are of different evaluations, so "
                "evaluate again"
            )
    return Evaluated(out, results, predictions)


def write_evaluated(out: Path, predictions: Mapping[str, Predictions], **about: Any) -> Evaluated:
    """Score the answers of every task and write them, ``results.json`` and ``evaluation.html``.

    ``about`` is what else `write_results` is told of the evaluation.
    """
    for name, answers in predictions.items():
        answers.save(out / "predictions" / f"{name}.parquet")
    results = write_results(
        out / "results.json",
        {name: score(answers) for name, answers in predictions.items()},
        details={name: details(answers) for name, answers in predictions.items()},
        **about,
    )
    write_evaluation_page(out / "evaluation.html", results, predictions)
    return Evaluated(out, results, dict(predictions))
