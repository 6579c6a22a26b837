"""The baselines of a folder of results beside its NeuroLM, from what lies there: nothing is computed or opened."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from neurolm.baselines.networks import NETWORKS
from neurolm.baselines.settings import BASELINES
from neurolm.reports.results import ResultsError, read_results

FOLDER = "baselines"
FACTS = "baseline.json"
"""In a baseline's folder: how its fit went, by task."""
SOURCES = {
    "majority": "the commonest class",
    "shuffled": "band_power on ten shuffles of its labels, in turn",
    "band_power": "log band power, logistic regression",
    "log_covariance": "log-covariance by band, logistic regression",
    "linear_probe": "trained tokenizer, logistic regression",
    "random_neurolm": "stage 3 alone, random weights",
}
"""What the systems are that are no published network."""


@dataclass(frozen=True)
class BaselineRow:
    """A system on a task."""

    task: str
    system: str
    source: str
    num_parameters: int | None
    published_parameters: str | None
    start: str | None
    """How the fit began, where the published one began otherwise."""
    balanced_accuracy: float
    balanced_accuracy_ci95: list[float] | None
    auroc: float | None
    auroc_ci95: list[float] | None
    cohen_kappa: float
    weighted_f1: float
    validation_score: float | None
    seconds: float | None
    """Of the fit; None where it is not known."""
    num_windows: int
    num_subjects: int
    chance: float | None
    seed: int
    test_openings: int
    """Which opening of the test split it was."""


@dataclass(frozen=True)
class BaselineTable:
    """All that was evaluated on one store."""

    data_digest: str
    rows: list[BaselineRow]
    left_out: list[str]
    """Folders whose results are of other data."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def markdown(self) -> str:
        """A table for every task, and notes."""
        blocks = []
        for task in dict.fromkeys(row.task for row in self.rows):
            rows = [row for row in self.rows if row.task == task]
            first = rows[0]
            chance = "" if first.chance is None else f", chance {first.chance:.3f}"
            blocks.append(
                f"**{task}**: {first.num_windows} test windows of {first.num_subjects} subjects{chance}; "
                f"95 % intervals over subjects\n\n{_table(rows)}"
            )
        blocks.append("\n".join(f"- {note}" for note in self.notes))
        return "\n\n".join(blocks) + "\n"

    @property
    def notes(self) -> list[str]:
        """What a reader must know beside the numbers."""
        notes = []
        if started := [row.system for row in self.rows if row.start is not None]:
            names = ", ".join(dict.fromkeys(started))
            notes.append(f"{names}: from random weights here; the published results began with pretrained ones.")
        if any(row.published_parameters for row in self.rows):
            notes.append(
                "Published parameters are for the windows of those papers; they vary with channels and length."
            )
        if any(row.balanced_accuracy_ci95 is None for row in self.rows):
            notes.append("No interval: fewer than five subjects.")
        notes.append("Networks kept the moment that was best on validation subjects (val).")
        notes += [f"{folder} is of other data and not in the table." for folder in self.left_out]
        openings = max((row.test_openings for row in self.rows), default=0)
        notes.append(f"The last of these was opening {openings} of this test split.")
        return notes


def read_table(out: Path, data_digest: str | None = None) -> BaselineTable:
    """The table of ``out``: its own results, then every baseline's that was evaluated on the same data.

    ``data_digest`` None is that of the first baseline found. Raises ResultsError where no baseline was evaluated.
    """
    folders = [out / FOLDER / name for name in BASELINES if (out / FOLDER / name / "results.json").is_file()]
    if not folders:
        raise ResultsError(f"{out / FOLDER}: no baseline was evaluated here; run `neurolm baseline CONFIG out={out}`")
    digest = data_digest or read_results(folders[0] / "results.json")["data_digest"]
    own = [out] if (out / "results.json").is_file() else []
    rows: list[BaselineRow] = []
    left_out: list[str] = []
    for folder in [*own, *folders]:
        results = read_results(folder / "results.json")
        if results["data_digest"] != digest:
            left_out.append(str(folder))
            continue
        facts = json.loads((folder / FACTS).read_text()) if (folder / FACTS).is_file() else {}
        rows += _rows("NeuroLM" if folder == out else folder.name, results, facts)
    tasks = {row.task for row in rows if row.system != "NeuroLM"}
    return BaselineTable(digest, sorted((row for row in rows if row.task in tasks), key=lambda row: row.task), left_out)


def _rows(system: str, results: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[BaselineRow]:
    network = NETWORKS.get(system)
    for task, found in results["tasks"].items():
        fact = facts.get(task, {})
        yield BaselineRow(
            task=task,
            system=system,
            source=network.source if network else SOURCES.get(system, "the model of this folder"),
            num_parameters=fact.get("num_parameters"),
            published_parameters=network.published_parameters if network else None,
            start="random" if network and network.published_start != "random" else None,
            balanced_accuracy=found["balanced_accuracy"],
            balanced_accuracy_ci95=found["balanced_accuracy_ci95"],
            auroc=found["auroc"],
            auroc_ci95=found.get("auroc_ci95"),
            cohen_kappa=found["cohen_kappa"],
            weighted_f1=found["weighted_f1"],
            validation_score=fact.get("validation_score"),
            seconds=fact.get("seconds"),
            num_windows=found["num_windows"],
            num_subjects=found["num_subjects"],
            chance=1 / len(found["labels"]) if found.get("labels") else None,
            seed=results["seed"],
            test_openings=results["test_openings"],
        )


def _table(rows: list[BaselineRow]) -> str:
    lines = [
        "| system | what it is | parameters | published | balanced accuracy | AUROC | kappa | F1 | val | fit s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            row.system,
            row.source,
            "-" if row.num_parameters is None else _count(row.num_parameters),
            row.published_parameters or "-",
            _interval(row.balanced_accuracy, row.balanced_accuracy_ci95),
            _interval(row.auroc, row.auroc_ci95),
            _number(row.cohen_kappa),
            _number(row.weighted_f1),
            _number(row.validation_score),
            "-" if row.seconds is None else f"{row.seconds:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _count(number: int) -> str:
    if number >= 10**5:
        return f"{number / 1e6:.2f} M"
    return f"{number:,}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(value: float | None, ends: list[float] | None) -> str:
    if value is None or ends is None:
        return _number(value)
    return f"{value:.3f} ({ends[0]:.3f} to {ends[1]:.3f})"
