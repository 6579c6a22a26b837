"""Who peaks when: what a run's ``validations.json`` says about each task, beside the weights that were kept."""

import json
from dataclasses import dataclass
from pathlib import Path

from neurolm.config import UserError
from neurolm.training.keeping import RECORD


@dataclass(frozen=True)
class Peak:
    """One task of one run, on validation data."""

    step: int
    """Where the task was best, the first time."""
    score: float
    kept_score: float
    """Of the weights that were kept: what choosing for all tasks together cost this one is the difference."""


@dataclass(frozen=True)
class Peaks:
    """All tasks of a run."""

    kept_step: int
    last_step: int
    tasks: dict[str, Peak]


def read_peaks(run: Path) -> Peaks | None:
    """The peaks of the run in a folder; None where it left no record, such as a sweep's. Raises UserError."""
    path = run / RECORD
    if not path.is_file():
        return None
    try:
        validations = json.loads(path.read_text())
        (kept,) = [one for one in validations if one["is_kept"]]
        tasks = {}
        for task, kept_score in kept["scores"].items():
            best = max(validations, key=lambda one: one["scores"][task])
            tasks[task] = Peak(best["step"], best["scores"][task], kept_score)
        return Peaks(kept["step"], validations[-1]["step"], tasks)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: no readable record of validations ({error}); train the run again") from None
