"""An evaluation as one page of HTML: scores with intervals, mistakes by class, calibration, ROC, every subject."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from neurolm.evaluation.details import TaskDetails, details
from neurolm.evaluation.predictions import Predictions
from neurolm.reports import evaluation_charts
from neurolm.reports.page import origin, results_section, table, write_page

SCORES = {
    "balanced_accuracy": "balanced accuracy",
    "auroc": "AUROC",
    "auc_pr": "AUC-PR",
    "cohen_kappa": "Cohen's kappa",
    "weighted_f1": "weighted F1",
}


def write_evaluation_page(path: Path, results: Mapping[str, Any], predictions: Mapping[str, Predictions]) -> Path:
    """Write the page and return its path.

    Args:
        path: the HTML file.
        results: what ``results.json`` holds, with the fields of `TaskDetails`.
        predictions: the answers of every task in it.
    """
    openings = results["test_openings"]
    facts = {
        "tasks": ", ".join(results["tasks"]),
        "data": str(results["data_digest"])[:16],
        "seed": str(results["seed"]),
        "openings of the test split so far": str(openings),
    }
    shown = {
        "facts": "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(fact)}</dd></div>" for name, fact in facts.items()),
        "results": results_section(results, {name: len(answers.labels) for name, answers in predictions.items()}),
        "tasks": "".join(_task(name, results["tasks"][name], answers) for name, answers in predictions.items()),
        "origin": origin(results),
    }
    write_page(path, "evaluation.html", shown)
    return path


def _task(name: str, result: Mapping[str, Any], predictions: Predictions) -> str:
    found = details(predictions)
    place = escape(f"task-{name}")
    return (
        f"<section aria-labelledby='{place}'><h2 id='{place}'>{escape(name)}</h2>"
        f"{_scores(result)}"
        f"<h3>Answers by class</h3>{_confusion(found)}"
        "<div class='pair'>"
        f"<div><h3>Calibration</h3><figure>{evaluation_charts.reliability(found.calibration)}"
        f"<figcaption>{_calibration(found)}</figcaption></figure></div>"
        f"<div><h3>ROC</h3><figure>{_roc_key(predictions)}{evaluation_charts.roc(predictions)}</figure></div></div>"
        f"<h3>Subjects</h3><figure>{evaluation_charts.subjects(predictions)}"
        f"<figcaption>{_spread(found)}</figcaption></figure></section>"
    )


def _scores(result: Mapping[str, Any]) -> str:
    recordings, released = result["recordings"], result["released_protocol"]
    rows = [
        [
            word,
            _number(result[name]),
            _interval(result.get(f"{name}_ci95")),
            _number(recordings.get(name) if recordings else None),
            _interval(recordings.get(f"{name}_ci95") if recordings else None),
        ]
        for name, word in SCORES.items()
    ]
    note = (
        f"A recording's answer is the class of the largest mean log-probability over its windows "
        f"({recordings['num_recordings']} recordings)."
        if recordings
        else "A recording has windows of several classes here, so there is no one answer a recording."
    )
    texts = [note, "Intervals are over subjects, by bootstrap; there are none below five subjects."]
    if centred := result.get("centred_by_subject"):
        texts.append(
            f"Relative to each subject's mean log-odds: balanced accuracy {_number(centred['balanced_accuracy'])} "
            f"({_interval(centred['balanced_accuracy_ci95'])}), AUROC {_number(centred['auroc'])} "
            f"({_interval(centred['auroc_ci95'])}). No label is read for that, but it needs all of a person's windows, "
            "and the classes in about equal parts."
        )
    if released:
        told = ", ".join(f"{word.replace('_', ' ')} {_number(value)}" for word, value in released.items())
        texts.append(f"By the released protocol (written answers, hard scores): {told}.")
    head = ["score", "per window", "95 % interval", "per recording", "95 % interval"]
    return table(head, rows) + f"<ul>{''.join(f'<li>{escape(one)}</li>' for one in texts)}</ul>"


def _confusion(found: TaskDetails) -> str:
    head = "".join(f"<th scope='col'>{escape(label)}</th>" for label in found.labels)
    rows = []
    for label, counts in zip(found.labels, found.confusion_matrix, strict=True):
        total = sum(counts)
        shares = [count / total if total else 0.0 for count in counts]
        cells = "".join(
            f"<td style='--share: {share:.1%}'>{share:.0%}<small>{count}</small></td>"
            for share, count in zip(shares, counts, strict=True)
        )
        rows.append(f"<tr><th scope='row'>{escape(label)}</th>{cells}</tr>")
    return (
        "<div class='wide'><table class='confusion'><caption class='note'>Rows: labels; columns: answers; shares of "
        f"the label's windows, on the diagonal the recall</caption><thead><tr><th scope='col'>label</th>"
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _calibration(found: TaskDetails) -> str:
    one = found.calibration
    return (
        f"Expected calibration error {one.expected_calibration_error:.3f} ({one.num_bins} equal bins), negative "
        f"log-likelihood {one.negative_log_likelihood:.3f}, Brier score {one.brier:.3f} (0 to 2). On the dotted line "
        "probabilities are right; below it the model is too sure. Larger discs have more windows."
    )


def _roc_key(predictions: Predictions) -> str:
    names = evaluation_charts.ranked_classes(predictions)
    keys = "".join(
        "<li><svg aria-hidden='true' viewBox='0 0 48 12'>"
        f"<polyline class='curve class-{place % evaluation_charts.NUM_STYLES}' points='2,6 46,6'/></svg> "
        f"{escape(name)}</li>"
        for place, name in enumerate(names)
    )
    return f"<ul class='key' aria-label='Which class a line is about'>{keys}</ul>"


def _spread(found: TaskDetails) -> str:
    spread = found.subjects
    low, high = spread.quartiles
    lacking = (
        f" {spread.num_lacking_a_class} subjects have no window of some class; theirs is the mean over the others."
        if spread.num_lacking_a_class
        else ""
    )
    return (
        f"Balanced accuracy of each subject alone, by keyed id: median {spread.median:.3f}, quartiles {low:.3f} and "
        f"{high:.3f}; the worst is <code>{escape(spread.worst.subject)}</code> with "
        f"{spread.worst.balanced_accuracy:.3f} on {spread.worst.num_windows} windows.{lacking}"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(ends: list[float] | None) -> str:
    return "-" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"
