"""The paper's results as data, and ours beside them where the data set is the same."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml


@dataclass(frozen=True)
class Published:
    """A balanced accuracy that somebody printed."""

    model: str
    kind: str
    """``multi-task`` as NeuroLM, or ``single-task``: tuned for this data set alone."""
    source: str
    balanced_accuracy: float
    sd: float | None
    """As printed; None where the source has none at hand."""


@dataclass(frozen=True)
class PublishedTask:
    """What was published on one of the paper's data sets."""

    note: str
    """How the paper's test set was made."""
    num_windows: int | None
    """Windows of the paper's test set; None where unknown."""
    num_subjects: int | None
    results: tuple[Published, ...]


@cache
def published() -> dict[str, PublishedTask]:
    """By task name: ``tuab``, ``tuev``, ``seed``, ``hmc``, ``workload``, ``tusl``."""
    values = yaml.safe_load(files("neurolm.reports").joinpath("paper_tables.yaml").read_text(encoding="utf-8"))
    return {
        name: PublishedTask(
            note=task["note"],
            num_windows=task.get("num_windows"),
            num_subjects=task.get("num_subjects"),
            results=tuple(
                Published(
                    model=row["model"],
                    kind=values["models"][row["model"]],
                    source=values["sources"][row["source"]],
                    balanced_accuracy=row["balanced_accuracy"],
                    sd=row.get("sd"),
                )
                for row in task["results"]
            ),
        )
        for name, task in values["tasks"].items()
    }


def beside_paper(results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """For every task with published numbers: these, ``ours_minus_theirs``, and ``notes`` on what differs."""
    beside = {}
    for name, task in results["tasks"].items():
        if (known := published().get(name)) is not None:
            rows = [
                asdict(one) | {"ours_minus_theirs": task["balanced_accuracy"] - one.balanced_accuracy}
                for one in known.results
            ]
            beside[name] = {"published": rows, "notes": [known.note, _same_test_set(task, known)]}
    return beside


def paper_table(results: Mapping[str, Any]) -> str:
    """Balanced accuracies in the paper's manner, ours first, for a terminal."""
    beside = beside_paper(results)
    seeds = results.get("seeds", [results["seed"]])
    ours = f"ours, seed {seeds[0]}" if len(seeds) == 1 else f"ours, mean of {len(seeds)} seeds"
    lines = []
    for name, task in results["tasks"].items():
        lines.append(f"{name:<24}{'balanced accuracy':>18}{'sd':>8}{'ours - theirs':>15}")
        lines.append(_line(ours, task["balanced_accuracy"], task.get("balanced_accuracy_sd"), None))
        if released := task.get("released_protocol"):
            lines.append(_line("  released protocol", released["balanced_accuracy"], None, None))
        for row in beside.get(name, {}).get("published", []):
            lines.append(
                _line(row["model"], row["balanced_accuracy"], row["sd"], row["ours_minus_theirs"])
                + f"   {row['kind']}; {row['source']}"
            )
        interval = task["balanced_accuracy_ci95"]
        told = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "none for fewer than five"
        lines.append(
            f"  ours on {task['num_windows']} windows of {task['num_subjects']} subjects ({task['split']}); "
            f"95 % interval over subjects: {told}"
        )
        notes = beside.get(name, {}).get("notes", ["There are no published numbers for this task."])
        lines += [*(f"  {note}" for note in notes), ""]
    return "\n".join(lines).rstrip()


def _same_test_set(task: Mapping[str, Any], known: PublishedTask) -> str:
    sizes = [
        ("windows", known.num_windows, task["num_windows"]),
        ("subjects", known.num_subjects, task["num_subjects"]),
    ]
    told = [(word, theirs, ours) for word, theirs, ours in sizes if theirs is not None]
    if task["split"] != "test":
        return f"Ours is of split {task['split']!r}, not of a held-out test set as the paper's."
    if not told:
        return "How large the paper's test set is stands nowhere here: check that yours is the same before you compare."
    if any(theirs != ours for _, theirs, ours in told):
        sizes_told = " and ".join(f"{theirs} {word} (ours {ours})" for word, theirs, ours in told)
        return f"Not the same test set: the paper's has {sizes_told}."
    return "The paper's test set has the same size; nothing here checks that it is of the same subjects."


def _line(name: str, value: float, sd: float | None, difference: float | None) -> str:
    shown = "-" if sd is None else f"{sd:.4f}"
    return f"{name:<24}{value:>18.4f}{shown:>8}" + ("" if difference is None else f"{difference:>+15.4f}")
