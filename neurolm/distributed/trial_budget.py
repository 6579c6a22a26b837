"""The budget of a trial in instruction tokens, and what its own record (``tracking.jsonl``) says of it.

Instruction tokens are what the model reads of a window when it is asked: the window's EEG tokens and the text of the
question and the answer. Batch size, text beside the EEG and workers do not change how many a training epoch has.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neurolm.config import ConfigError
from neurolm.distributed.sweep_log import Point
from neurolm.eeg.shards import Store, WindowIndex
from neurolm.sequences import PATCH_POINTS
from neurolm.text.asked import classes_of_windows, windows_of_task
from neurolm.text.bpe import gpt2_bpe
from neurolm.text.code import TextCode
from neurolm.text.instructions import EncodedTask, encode_task
from neurolm.tracking.journal import FILE_NAME, read_pieces
from neurolm.training.assembly import reading_plan
from neurolm.training.model_export import TEXT_CODE
from neurolm.training.runs import InstructRun

VALIDATION = "validation/"
STATE_TAG = "trial_state"
"""Set once by the sweep on the run of a trial that has ended."""


@dataclass(frozen=True)
class BudgetAxis:
    """Steps of a run as instruction tokens."""

    num_windows: int
    """Windows of a training epoch."""
    tokens_per_window: float
    """Mean over the training windows; a window that is asked twice counts twice."""

    @staticmethod
    def of(run: InstructRun) -> "BudgetAxis":
        """Count the training windows of a run. Raises UserError."""
        store = Store.open(run.training_store)
        plan = reading_plan(run)
        index = plan.windows(store, "train")
        often = {
            name: readings.total / (run.epochs * readings.num_windows)
            for name, readings in plan.readings(store).items()
            if readings.num_windows
        }
        own_code = run.pretrained_folder / TEXT_CODE
        code = TextCode.from_json(own_code.read_text(encoding="utf-8")) if own_code.is_file() else gpt2_bpe()
        tasks = [encode_task(task, code) for task in run.asked_tasks]
        tokens = sum(often.get(task.task.data_set, 0.0) * _tokens(index, task) for task in tasks)
        return BudgetAxis(len(index), tokens / len(index))

    def at(self, run: InstructRun, step: int) -> int:
        """Instruction tokens seen after so many optimizer steps."""
        epochs, steps = divmod(step, -(-self.num_windows // run.batch.size))
        return round((epochs * self.num_windows + steps * run.batch.size) * self.tokens_per_window)

    def full(self, epochs: int) -> int:
        """Instruction tokens of so many training epochs."""
        return round(epochs * self.num_windows * self.tokens_per_window)


@dataclass(frozen=True)
class TrialRecording:
    """What a trial's own record says, however often it was cut off and went on."""

    validations: dict[int, dict[str, float]]
    """Metrics by step; of a step that was repeated, those of the first time."""
    starts: int
    seconds: float
    """From each start to the last line before the next."""
    is_told: bool
    """Whether the sweep has said how it ended."""


def read_recording(folder: Path) -> TrialRecording:
    """Read the record of a run's folder; of nothing where there is none."""
    validations: dict[int, dict[str, float]] = {}
    starts, seconds, is_told = 0, 0.0, False
    began = last = 0.0
    is_training = False
    for entry in _entries(folder / FILE_NAME):
        kind, at = entry["event"], float(entry["time"])
        if kind == "start":
            seconds += last - began if is_training else 0.0
            began, is_training = at, False
        elif kind == "params":  # the first thing that a worker says; the sweep itself only closes
            starts += not is_training
            is_training = True
        elif kind == "tags":
            is_told |= STATE_TAG in entry["values"]
        elif kind == "metrics" and f"{VALIDATION}score" in entry["values"]:
            found = {name: float(value) for name, value in entry["values"].items() if name.startswith(VALIDATION)}
            validations.setdefault(entry["step"], {name.removeprefix(VALIDATION): found[name] for name in found})
        last = at
    return TrialRecording(validations, starts, seconds + (last - began if is_training else 0.0), is_told)


def points(
    recording: TrialRecording, run: InstructRun, axis: BudgetAxis, objectives: Collection[str]
) -> Iterator[Point]:
    """The validations of a trial as a sweep knows them, in order. Raises ConfigError for an unknown objective."""
    for step, metrics in sorted(recording.validations.items()):
        tasks = run.task_scores(metrics)
        if unknown := [name for name in objectives if name not in tasks and name not in metrics]:
            raise ConfigError(
                f"sweep.objective: validation tells no {unknown[0]!r}; it tells {', '.join(sorted(metrics))}"
            )
        yield Point(
            step=step,
            budget=axis.at(run, step),
            score=metrics["score"],
            objectives={name: tasks[name] if name in tasks else metrics[name] for name in objectives},
            tasks=tasks,
        )


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    for piece in read_pieces(path) if path.is_file() else ():
        yield from piece.entries


def _tokens(index: WindowIndex, task: EncodedTask) -> float:
    """Tokens of all windows that a task asks about: theirs, and those of the text with each one's answer."""
    mine = windows_of_task(index, task.task)
    eeg = float(np.sum(mine.num_channels * (mine.num_times // PATCH_POINTS)))
    lengths = np.array([len(task.training_text(place).ids) for place in range(len(task.labels))])
    return eeg + float(lengths[classes_of_windows(mine, task.task)].sum())
