"""Whether a sweep's winner is better than the paper's setting: both trained again on seeds that chose nothing.

The best trial of many is partly the luckiest. Its setting trained anew on fresh seeds says what it is worth on the
validation subjects without that luck; the same seeds for the paper's setting make differences that are paired.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.special import stdtrit

from neurolm.config import UserError
from neurolm.evaluation.comparison import ROUNDING, exchanges
from neurolm.reports.results import write_whole

SCHEMA_VERSION = 1
FILE_NAME = "confirmation.json"

Arm = Literal["best", "reference"]
"""The best trial's setting, or the one that it has to beat."""


class ConfirmationError(UserError):
    """A record of a confirmation that cannot be read."""


@dataclass(frozen=True)
class SeedRun:
    """One setting trained on one seed."""

    seed: int
    run_id: str
    score: float | None = None
    """What the sweep optimised, of the weights kept; None while there is none."""
    tasks: dict[str, float] = field(default_factory=dict)
    """The same of each task."""
    seconds: float | None = None
    """Wall time."""
    reason: str | None = None
    """Why there is no score."""


@dataclass(frozen=True)
class Summary:
    """Scores of several seeds."""

    number: int
    mean: float
    sd: float | None
    """Of seeds (n - 1); None of fewer than two."""


@dataclass(frozen=True)
class PairedDifference:
    """Best minus reference, seed by seed."""

    differences: dict[int, float]
    """By seed."""
    mean: float
    sd: float | None
    ci95: tuple[float, float] | None
    """Of the mean over seeds, by Student's t; None of fewer than two."""
    p_value: float
    """Two-sided, from every exchange of the two settings' scores within seeds."""
    smallest_p_value: float
    """What no p-value of so few seeds can fall below."""


@dataclass(frozen=True)
class Confirmation:
    """The best setting and the reference on the same fresh seeds."""

    metric: str
    """What the scores are, in words."""
    seeds: list[int]
    """Seeds that no trial had."""
    best_trial: int
    sweep_score: float
    """What the best trial reached in the sweep."""
    reference: str
    """What the best setting is compared with, in words."""
    reference_parameters: dict[str, Any]
    """Dotted setting to its value there."""
    is_same: bool
    """Whether the best trial has the reference's own settings, so that there is nothing to compare."""
    best_runs: list[SeedRun]
    reference_runs: list[SeedRun]
    larger_is_better: bool = True
    kept_seed: int | None = None
    """The seed whose model became ``instruct/model``; None: the best trial's own."""
    kept_arm: Arm = "best"
    """Which setting's run of that seed it is."""

    @property
    def is_complete(self) -> bool:
        """Whether every run has a score."""
        runs = self.best_runs + ([] if self.is_same else self.reference_runs)
        number = len(self.seeds) * (1 if self.is_same else 2)
        return len(runs) == number and all(run.score is not None for run in runs)

    @property
    def best(self) -> Summary | None:
        """The best setting over the seeds that have a score."""
        return summary([run.score for run in self.best_runs if run.score is not None])

    @property
    def paper(self) -> Summary | None:
        """The reference over the seeds that have a score."""
        return summary([run.score for run in self.reference_runs if run.score is not None])

    @property
    def difference(self) -> PairedDifference | None:
        """Over the seeds on which both have a score."""
        reference = {run.seed: run.score for run in self.reference_runs}
        found = {
            run.seed: run.score - other
            for run in self.best_runs
            if run.score is not None and (other := reference.get(run.seed)) is not None
        }
        return None if self.is_same or not found else paired(found)

    @property
    def is_worse(self) -> bool:
        """Whether the fresh seeds say that the best setting is worse than the reference."""
        found = self.difference
        if found is None or found.ci95 is None:
            return False
        return found.ci95[1] < 0 if self.larger_is_better else found.ci95[0] > 0

    @property
    def chosen_arm(self) -> Arm:
        """The setting of which a run is kept."""
        return "reference" if self.is_worse else "best"

    @property
    def chosen(self) -> SeedRun | None:
        """The run with the best validation score of the best setting, or of the reference where that is worse.

        Of equal ones it is the first.
        """
        runs = self.best_runs if self.chosen_arm == "best" else self.reference_runs
        scored = [run for run in runs if run.score is not None]
        sign = 1 if self.larger_is_better else -1
        return max(scored, key=lambda run: sign * (run.score or 0.0), default=None)

    @property
    def verdict(self) -> str:
        """What the fresh seeds say, in a sentence that promises no more than they do."""
        found = self.difference
        if self.is_same:
            return f"The best trial has the settings of {self.reference}: there is nothing to compare."
        if found is None:
            return "No seed has a score for both settings yet."
        gain = found.mean if self.larger_is_better else -found.mean
        better = sum((one if self.larger_is_better else -one) > 0 for one in found.differences.values())
        told = f"The best setting is better than {self.reference} on {better} of {len(found.differences)} seeds"
        told += f", by {gain:+.3f} on average"
        if found.ci95 is None:
            return f"{told}; one seed says little."
        if found.ci95[0] <= 0 <= found.ci95[1]:
            return f"{told}; the 95 % interval includes no difference, so the sweep has not shown a gain."
        if self.is_worse:
            return f"{told}: on fresh seeds it is worse. Use {self.reference}."
        return f"{told}; the 95 % interval excludes no difference."

    def as_dict(self) -> dict[str, Any]:
        """The record, with what follows from it, as plain values."""
        difference = self.difference
        return asdict(self) | {
            "is_complete": self.is_complete,
            "best": asdict(self.best) if self.best else None,
            "paper": asdict(self.paper) if self.paper else None,
            "difference": asdict(difference) if difference else None,
            "verdict": self.verdict,
        }

    def save(self, path: Path) -> None:
        """Write JSON, whole or not at all."""
        write_whole(path, json.dumps({"schema": SCHEMA_VERSION} | asdict(self), indent=1, default=str) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Confirmation":
        """Read what ``save`` wrote. Raises ConfirmationError."""
        try:
            values = json.loads(path.read_text())
            if values.pop("schema") != SCHEMA_VERSION:
                raise ValueError("another schema")
            runs = {name: [SeedRun(**run) for run in values.pop(name)] for name in ("best_runs", "reference_runs")}
            return cls(**(values | runs))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfirmationError(
                f"{path}: no readable confirmation of schema {SCHEMA_VERSION} ({error}); delete it, and the sweep's "
                "command writes it anew from the runs that are there"
            ) from None


def summary(scores: Sequence[float]) -> Summary | None:
    """Number, mean and sd; None of nothing."""
    if not scores:
        return None
    sd = float(np.std(scores, ddof=1)) if len(scores) > 1 else None
    return Summary(len(scores), float(np.mean(scores)), sd)


def paired(differences: dict[int, float]) -> PairedDifference:
    """What differences by seed say: their mean, its interval by Student's t, and an exact test of exchanges.

    If the two settings were equally good, each difference would have had either sign with the same chance; the p-value
    is the share of all such sign flips whose mean is at least as large. With n seeds it cannot fall below 2 / 2^n.
    """
    values = np.array(list(differences.values()))
    number, mean = len(values), float(values.mean())
    sd = float(values.std(ddof=1)) if number > 1 else None
    room = None if sd is None else float(stdtrit(number - 1, 0.975)) * sd / number**0.5
    flips, is_complete = exchanges(number)
    means = ((1 - 2 * flips) * values).mean(axis=1)
    as_large = int((np.abs(means) >= abs(mean) - ROUNDING).sum())
    return PairedDifference(
        differences=differences,
        mean=mean,
        sd=sd,
        ci95=None if room is None else (mean - room, mean + room),
        p_value=as_large / len(means) if is_complete else (as_large + 1) / (len(means) + 1),
        smallest_p_value=2 / 2**number if is_complete else 1 / (len(means) + 1),
    )
