"""Old answers, today's metrics: scores computed again from saved predictions, and what changed by it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from neurolm.evaluation.details import details
from neurolm.evaluation.predictions import score
from neurolm.reports.evaluated import read_evaluated
from neurolm.reports.evaluation_page import write_evaluation_page
from neurolm.reports.results import save_results
from neurolm.tracking.code import git_commit

TOLERANCE = 1e-9
"""Differences of numbers up to this are rounding."""


@dataclass(frozen=True)
class Change:
    """A score that is not what it was."""

    task: str
    field: str
    """Dotted below the task."""
    before: Any
    after: Any


@dataclass(frozen=True)
class Rescored:
    """What `rescore` did."""

    path: Path
    results: dict[str, Any]
    changes: list[Change]
    added: dict[str, list[str]]
    """Task to fields that its results did not have."""
    not_scored: list[str]
    """Predictions that belong to no task of the results, by file name."""
    page: Path

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "results": str(self.path),
            "page": str(self.page),
            "changes": [asdict(change) for change in self.changes],
            "added": self.added,
            "not_scored": self.not_scored,
        }

    def table(self) -> str:
        """Lines for a terminal."""
        lines = [
            f"{change.task}  {change.field}: {_shown(change.before)} -> {_shown(change.after)}"
            for change in self.changes
        ]
        lines += [f"{task}  added: {', '.join(names)}" for task, names in self.added.items()]
        lines = lines or ["no score changed"]
        lines += [f"predictions/{name} was not scored: results.json has no such task" for name in self.not_scored]
        return "\n".join([*lines, str(self.path), str(self.page)])


def rescore(out: Path) -> Rescored:
    """Score the saved answers of ``out`` again and write ``results.json`` and the evaluation page.

    No model and no store is opened, so this is no opening of the test split. Digests, seed, commit, the count of
    openings and fields that scoring does not know stay as they are. Where a score changed or came new,
    ``rescored_git_commit`` tells the commit of the code that computed it.

    Raises:
        UserError: there are no results, no predictions, or the two do not belong together.
    """
    evaluated = read_evaluated(out)
    before = evaluated.results
    scored = {
        name: score(answers).as_dict() | details(answers).as_dict() for name, answers in evaluated.predictions.items()
    }
    changes = [
        change
        for name, fields in scored.items()
        for field, value in fields.items()
        if field in before["tasks"][name]
        for change in _changes(name, field, before["tasks"][name][field], value)
    ]
    added = {name: [field for field in fields if field not in before["tasks"][name]] for name, fields in scored.items()}
    added = {name: fields for name, fields in added.items() if fields}
    results = before | {"tasks": {name: before["tasks"][name] | fields for name, fields in scored.items()}}
    if changes or added:
        results["rescored_git_commit"] = git_commit()
        save_results(evaluated.results_path, results)
    files = sorted((out / "predictions").glob("*.parquet"))
    return Rescored(
        path=evaluated.results_path,
        results=results,
        changes=changes,
        added=added,
        not_scored=[file.name for file in files if file.stem not in scored],
        page=write_evaluation_page(out / "evaluation.html", results, evaluated.predictions),
    )


def _changes(task: str, field: str, before: Any, after: Any) -> list[Change]:
    """Where two values differ, by dotted name; lists are one value."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        names = dict.fromkeys([*before, *after])
        pairs = ((name, before.get(name), after.get(name)) for name in names)
        return [change for name, *values in pairs for change in _changes(task, f"{field}.{name}", *values)]
    return [] if _same(before, after) else [Change(task, field, before, after)]


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, list) and isinstance(after, list):
        return len(before) == len(after) and all(_same(*pair) for pair in zip(before, after, strict=True))
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return before.keys() == after.keys() and all(_same(before[name], after[name]) for name in before)
    if isinstance(before, float) and isinstance(after, int | float):
        return abs(before - after) <= TOLERANCE
    return bool(before == after)


def _shown(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else json.dumps(value)
