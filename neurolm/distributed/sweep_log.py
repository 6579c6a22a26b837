"""What happened in a sweep, in the order in which it happened: ``trials.jsonl``, one JSON object a line, appended.

This file is the truth about a sweep; Optuna's study, the record and the pages are made from it. Every line is on the
disk before anything is done because of it, so after any kill the sweep goes on from what the lines say.

Events: ``begin`` (what to try first, what is learnt from earlier sweeps, which weights trials keep), ``trial`` (its
parameters, and what the sampler noted), ``report`` (a validation), ``end`` (complete, pruned or failed).
"""

import fcntl
import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neurolm.config import UserError
from neurolm.reports.sweep import State
from neurolm.training.keeping import Keep

FILE_NAME = "trials.jsonl"


def trial_name(number: int) -> str:
    """Name and folder of a trial's run."""
    return f"trial-{number:04d}"


@dataclass(frozen=True)
class Point:
    """One validation of a trial."""

    step: int
    """Optimizer steps done."""
    budget: int
    """Instruction tokens seen."""
    score: float
    """The validation score by which the run chooses the weights that it keeps."""
    objectives: dict[str, float]
    """What the sweep optimises, by name."""
    tasks: dict[str, float]
    """The selection metric of every task."""


@dataclass
class Trial:
    """One configuration and what became of it."""

    number: int
    parameters: dict[str, Any]
    origin: str
    full_budget: int
    """Instruction tokens of the whole trial."""
    mistake: str | None
    """Why its settings are impossible; None: they are not."""
    notes: dict[str, Any]
    """What the sampler noted on the trial (Optuna's system attributes)."""
    began: float
    """When it was proposed, in seconds since 1970."""
    keep: Keep = "best"
    """Which of its weights a run keeps."""
    points: list[Point] = field(default_factory=list)
    state: State | None = None
    """None while it is under way."""
    reason: str | None = None
    ended: float | None = None

    @property
    def kept(self) -> Point | None:
        """The validation whose weights the run kept: the first of the best score, or the last; None: there is none."""
        finite = [point for point in self.points if math.isfinite(point.score)]
        if self.keep == "final":
            return finite[-1] if finite else None
        return max(finite, key=lambda point: point.score, default=None)


@dataclass
class SweepState:
    """All that is known about a sweep: the events so far, put together."""

    trials: list[Trial] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    """What the sampler noted on the whole study."""
    given: list[dict[str, Any]] | None = None
    """``parameters`` and ``origin`` of the trials to make first; None before the sweep has begun."""
    keep: Keep = "best"
    """Which of their weights trials keep."""
    learnt: list[dict[str, Any]] = field(default_factory=list)
    """``parameters``, ``objectives``, ``score`` and ``origin`` of earlier sweeps' trials that the sampler is told."""

    @classmethod
    def of(cls, events: Iterable[Mapping[str, Any]]) -> "SweepState":
        """The state after some events."""
        state = cls()
        for event in events:
            state.apply(event)
        return state

    def apply(self, event: Mapping[str, Any]) -> None:
        """Let one more event happen."""
        kind, at = event["event"], float(event["time"])
        if kind == "begin":
            self.given, self.learnt, self.keep = list(event["given"]), list(event["learnt"]), event["keep"]
        elif kind == "trial":
            assert event["number"] == len(self.trials), "trials are numbered in order"
            self.notes |= event["study_notes"]
            values = {
                name: event[name] for name in ("number", "parameters", "origin", "full_budget", "mistake", "notes")
            }
            self.trials.append(Trial(**values, began=at, keep=self.keep))
        elif kind == "report":
            values = {name: event[name] for name in ("step", "budget", "score", "objectives", "tasks")}
            self.trials[event["number"]].points.append(Point(**values))
        elif kind == "end":
            trial = self.trials[event["number"]]
            trial.state, trial.reason, trial.ended = event["state"], event["reason"], at

    @property
    def unfinished(self) -> list[Trial]:
        """Trials that were proposed and have not ended."""
        return [trial for trial in self.trials if trial.state is None]


class SweepLog:
    """The file of events of one sweep, and their state; one process at a time writes it.

    Args:
        folder: of the sweep.

    Raises:
        UserError: a line that is not the last cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / FILE_NAME
        _drop_half_a_line(self.path)
        self.state = SweepState.of(read_events(self.path))

    def append(self, event: str, **fields: Any) -> None:
        """Write an event to the disk, then let it happen."""
        whole = {"event": event, "time": round(time.time(), 3), **fields}
        line = json.dumps(whole)
        with self.path.open("ab", buffering=0) as file:
            file.write(line.encode() + b"\n")
            os.fsync(file.fileno())
        self.state.apply(json.loads(line))  # as it will be read: what happens now happens again


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a file, if there is one; a line that is being written waits. Raises UserError."""
    whole = path.read_text().rpartition("\n")[0] if path.is_file() else ""
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise UserError(
                f"{path}: line {number} cannot be read ({error}); restore the file from a copy, or delete the folder "
                "to start the sweep again"
            ) from None


@contextmanager
def sole_driver(folder: Path) -> Iterator[None]:
    """Hold the sweep of a folder; it is free again when this process ends, however it does. Raises UserError."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "driver.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another process runs this sweep; wait for it, or end it first") from None
        yield


def _drop_half_a_line(path: Path) -> None:
    """Cut off what a killed process left of its last line: that event has not happened."""
    if path.is_file() and (text := path.read_bytes()) and not text.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(text.rfind(b"\n") + 1)
