"""Two evaluated runs beside each other, task by task, on the same windows."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from neurolm.eeg.sealing import count_openings
from neurolm.evaluation.comparison import Comparison, ComparisonError, Difference, compare_means
from neurolm.evaluation.pooling import OPENED
from neurolm.evaluation.predictions import Predictions
from neurolm.reports.cross_validation import read_seeds
from neurolm.reports.evaluated import Evaluated


@dataclass(frozen=True)
class Compared:
    """One side: a folder of results, or the pooled seeds of a cross-validation."""

    out: Path
    seeds: list[Evaluated]

    @property
    def origin(self) -> dict[str, Any]:
        """Where the numbers come from; of several seeds, ``seed`` lists them."""
        origin = self.seeds[0].origin | {"test_openings": self.test_openings}
        return origin if len(self.seeds) == 1 else origin | {"seed": [one.origin["seed"] for one in self.seeds]}

    @property
    def test_openings(self) -> int:
        """How often the test split had been opened, as far as these results know."""
        return max(one.results["test_openings"] for one in self.seeds)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks with answers."""
        return tuple(self.seeds[0].predictions)

    def answers(self, task: str) -> list[Predictions]:
        """Every seed's answers to a task."""
        return [one.predictions[task] for one in self.seeds]


@dataclass(frozen=True)
class RunComparison:
    """What `compare_runs` found."""

    a: Compared
    b: Compared
    tasks: dict[str, Comparison]
    test_openings: int
    """How often the test split of this data was opened, as far as the runs and this machine know."""

    @property
    def notes(self) -> list[str]:
        """What a reader must know beside the numbers."""
        few = {one.num_subjects: one.smallest_p_value for one in self.tasks.values() if one.smallest_p_value > 0.01}
        notes = [f"With {size} subjects no p can fall below {least:.3g}." for size, least in sorted(few.items())]
        names = {*self.a.tasks, *self.b.tasks} - self.tasks.keys()
        notes += [f"{name} was evaluated in one of the runs only." for name in sorted(names)]
        if self.a.origin["data_digest"] != self.b.origin["data_digest"]:
            notes.append("The stores differ (data_digest), though these windows have the same ids, times and labels.")
        if any(self.a.answers(name)[0].split in OPENED for name in self.a.tasks):
            notes.append(
                f"A was opening {self.a.test_openings} of the test split, B opening {self.b.test_openings}; it has "
                f"been opened {self.test_openings} times so far. "
                "Choosing a model by this comparison is choosing on test data."
            )
        return notes

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "a": {"out": str(self.a.out)} | self.a.origin,
            "b": {"out": str(self.b.out)} | self.b.origin,
            "tasks": {name: asdict(comparison) for name, comparison in self.tasks.items()},
            "test_openings": self.test_openings,
            "notes": self.notes,
        }

    def table(self) -> str:
        """Lines for a terminal."""
        width = max(len(name) for name in self.tasks)
        lines = [f"A  {self.a.out}", f"B  {self.b.out}", ""]
        lines.append(
            f"{'task':<{width}}  {'score':<17}  {'A':>6}  {'B':>6}  {'B - A':>6}  {'95 % interval':>16}  {'p':>7}"
        )
        for name, one in self.tasks.items():
            for word, found in (("balanced accuracy", one.balanced_accuracy), ("AUROC", one.auroc)):
                if found is not None:
                    lines.append(f"{name:<{width}}  {word:<17}  {_row(found)}")
        lines.append("")
        for name, one in self.tasks.items():
            how = "all" if one.all_exchanges else f"{one.num_exchanges} random"
            lines.append(
                f"{name}: {one.num_windows} windows of {one.num_subjects} subjects; p from {how} exchanges of the "
                "models' answers by subject."
            )
        return "\n".join([*lines, *self.notes])


def compare_runs(out_a: Path, out_b: Path) -> RunComparison:
    """Compare what two folders' saved answers are worth; opens no test split. Of cross-validations the means count.

    Raises:
        UserError: a folder was not evaluated, no task is in both, or a task's windows are not the same.
    """
    a, b = Compared(out_a, read_seeds(out_a)), Compared(out_b, read_seeds(out_b))
    names = [name for name in a.tasks if name in b.tasks]
    if not names:
        raise ComparisonError(
            f"{out_a} has answers for {', '.join(a.tasks)}, {out_b} for {', '.join(b.tasks)}: no task is "
            "in both; evaluate one of them for the other's task"
        )
    tasks = {name: compare_means(a.answers(name), b.answers(name)) for name in names}
    return RunComparison(a, b, tasks, max(a.test_openings, b.test_openings, count_openings(a.origin["data_digest"])))


def _row(found: Difference) -> str:
    ends = found.difference_ci95
    interval = f"{ends[0]:+.3f} to {ends[1]:+.3f}" if ends else "-"
    return f"{found.a:6.3f}  {found.b:6.3f}  {found.difference:+6.3f}  {interval:>16}  {found.p_value:7.4f}"
