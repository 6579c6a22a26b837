"""``results.json``, the public record of an evaluation, and the same as a table for the terminal."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neurolm.config import UserError
from neurolm.evaluation.details import TaskDetails
from neurolm.evaluation.pooling import OPENED
from neurolm.evaluation.predictions import TaskResult

SCHEMA_VERSION = 1


class ResultsError(UserError):
    """A results file that cannot be read."""


def write_results(
    path: Path,
    tasks: Mapping[str, TaskResult],
    *,
    config_digest: str,
    data_digest: str,
    git_commit: str | None,
    seed: int,
    test_openings: int,
    leakage: Mapping[str, Any] | None = None,
    details: Mapping[str, TaskDetails] | None = None,
    asked: Mapping[str, Mapping[str, Any]] | None = None,
    language: Mapping[str, Mapping[str, float]] | None = None,
    changed: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Write ``results.json``, whole or not at all, and return what it holds.

    Args:
        path: the file.
        tasks: instruction name to its score.
        config_digest: of the config that trained and evaluated.
        data_digest: of the store's manifest.
        git_commit: of the code; see ``git_commit``.
        seed: of the run.
        test_openings: how often the test split of this data was opened so far, whatever the output folder.
        leakage: the reason for which training on test subjects or signals was allowed, and how many there were.
        details: instruction name to what stands behind its score; its fields follow the score's.
        asked: instruction name to how it was asked, where not every window once in the task's own words.
        language: loss of held-out text before instruction tuning and after; None where it was not measured.
        changed: what the training went on with although it had changed: the step, and digests before and after by name.
    """
    results = {
        "schema": SCHEMA_VERSION,
        "tasks": {
            name: result.as_dict() | (details[name].as_dict() if details else {}) | dict((asked or {}).get(name, {}))
            for name, result in tasks.items()
        },
        "config_digest": config_digest,
        "data_digest": data_digest,
        "git_commit": git_commit,
        "seed": seed,
        "test_openings": test_openings,
        "leakage": dict(leakage) if leakage else None,
    }
    if language is not None:
        results["language"] = {when: dict(values) for when, values in language.items()}
    if changed:
        results["resumed_with_changed"] = [dict(one) for one in changed]
    save_results(path, results)
    return results


def save_results(path: Path, results: Mapping[str, Any]) -> None:
    """Write what ``results.json`` holds. Raises ValueError, and leaves the old file, if a number is not finite."""
    write_whole(path, json.dumps(results, indent=2, allow_nan=False) + "\n")


def read_results(path: Path) -> dict[str, Any]:
    """Read a ``results.json``. Raises ResultsError."""
    try:
        results = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path}: no readable results ({error})") from None
    if not isinstance(results, dict) or results.get("schema") != SCHEMA_VERSION:
        raise ResultsError(f"{path}: not a results file of schema {SCHEMA_VERSION}; `evaluate` writes one")
    return results


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that no reader and no crash ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def results_rows(results: Mapping[str, Any], num_classes: Mapping[str, int] | None = None) -> list[dict[str, str]]:
    """One row of texts a task, for a table anywhere; ``num_classes`` gives the chance level where it is not two."""
    rows = []
    for name, task in results["tasks"].items():
        classes = (num_classes or {}).get(name) or (2 if task["auc_pr"] is not None else None)
        interval = task["balanced_accuracy_ci95"]
        rows.append(
            {
                "task": name,
                "split": task["split"],
                "windows": str(task["num_windows"]),
                "recordings": str(task["num_recordings"]),
                "subjects": str(task["num_subjects"]),
                "balanced accuracy": _number(task["balanced_accuracy"]),
                "95 % interval": f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "-",
                "chance": _number(1 / classes if classes else None),
                "AUROC": _number(task["auroc"]),
                "AUC-PR": _number(task["auc_pr"]),
                "Cohen's kappa": _number(task["cohen_kappa"]),
                "weighted F1": _number(task["weighted_f1"]),
                "invalid answers": f"{task['invalid_answer_rate']:.1%}",
            }
        )
    return rows


def results_notes(results: Mapping[str, Any], num_classes: Mapping[str, int] | None = None) -> list[str]:
    """What a reader must know beside the numbers: how far from chance, how often the test split was opened."""
    notes = []
    if leakage := results.get("leakage"):
        subjects, recordings = (
            "unknown" if leakage[name] is None else leakage[name] for name in ("num_subjects", "num_recordings")
        )
        notes.append(
            f"LEAKAGE ALLOWED: {leakage['reason']} (test subjects trained on: {subjects}, recordings: {recordings})."
        )
    for change in results.get("resumed_with_changed", ()):
        names = ", ".join(name for name in change if name != "step")
        notes.append(f"CHANGED IN TRAINING: it went on from step {change['step']} with another {names}.")
    for name, task in results["tasks"].items():
        classes = (num_classes or {}).get(name) or (2 if task["auc_pr"] is not None else None)
        interval = task["balanced_accuracy_ci95"]
        if interval is None:
            notes.append(f"{name}: no interval, {task['num_subjects']} subjects are too few (5 are needed).")
        elif classes:
            side = "above" if interval[0] > 1 / classes else "below" if interval[1] < 1 / classes else "includes"
            verdict = f"the interval {side} chance" if side == "includes" else f"the interval lies {side} chance"
            notes.append(f"{name}: {verdict} ({1 / classes:.3f}).")
    if (folds := results.get("cross_validation")) is not None:
        whom = (
            "all subjects" if folds["within"] == "all" else "training and validation subjects; no test subject is here"
        )
        seeds = ", ".join(map(str, results["seeds"]))
        notes.append(f"Out-of-fold answers of {folds['folds']} folds over {whom}. Seeds: {seeds}.")
    openings = results["test_openings"]
    times = "once" if openings == 1 else f"{openings} times"
    splits = {task["split"] for task in results["tasks"].values()}
    if "test" in splits:
        notes.append(f"The test split of this data has been opened {times} so far.")
    elif splits & set(OPENED):
        notes.append(f"Every subject is a test subject here; their windows have been opened {times} so far.")
    for name, task in results["tasks"].items():
        if left_out := task.get("left_out"):
            told = ", ".join(f"{label} ({number})" for label, number in left_out.items())
            notes.append(f"{name}: windows left out by their label: {told}.")
        if centred := task.get("centred_by_subject"):
            notes.append(
                f"{name}: relative to each subject's mean log-odds, which needs all windows of a person and classes in "
                f"equal parts: {centred['balanced_accuracy']:.3f}, AUROC {_number(centred['auroc'])}."
            )
        if orders := task.get("option_orders"):
            notes.append(f"{name}: probabilities are means over {orders} orders of the options.")
    if language := results.get("language"):
        before, after = language["before"], language["after"]
        notes.append(
            f"Held-out text before instruction tuning and after: perplexity {before['perplexity']:.4g} and "
            f"{after['perplexity']:.4g}, nats a byte {before['nats_per_byte']:.3f} and {after['nats_per_byte']:.3f}."
        )
    notes.append("Scores are per window: balanced accuracy with its interval over subjects, weighted F1.")
    return notes


def results_table(results: Mapping[str, Any], num_classes: Mapping[str, int] | None = None) -> str:
    """The results as a table for a terminal, with notes below."""
    rows = results_rows(results, num_classes)
    if not rows:
        return "No task was evaluated."
    columns = [name for name in rows[0] if name not in ("split", "recordings")]
    short = {
        "balanced accuracy": "balanced",
        "Cohen's kappa": "kappa",
        "weighted F1": "F1",
        "invalid answers": "invalid",
    }
    table = [[short.get(name, name) for name in columns], *([row[name] for name in columns] for row in rows)]
    widths = [max(len(line[place]) for line in table) for place in range(len(columns))]
    lines = [_line(line, widths) for line in table]
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join([*lines, "", *results_notes(results, num_classes)])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _line(texts: Sequence[str], widths: Sequence[int]) -> str:
    """The first column flush left, numbers flush right."""
    first, *others = zip(texts, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]).rstrip()
