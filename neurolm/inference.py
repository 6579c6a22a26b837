"""A recording in, answers out: per window and for the whole recording, with probabilities."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neurolm.config import UserError, build
from neurolm.datasets.ingest import layout_described
from neurolm.eeg.preprocessing import PreprocessingConfig, preprocess
from neurolm.eeg.recording import RecordingError
from neurolm.eeg.shards import StoredWindow
from neurolm.eeg.windows import cut, unusable
from neurolm.evaluation.predicting import predict_windows
from neurolm.text.code import TextCode
from neurolm.text.instructions import EncodedTask, Task, encode_task
from neurolm.training.assembly import load_neurolm
from neurolm.training.tasks import refuse_too_long, tasks_of_model


@dataclass(frozen=True)
class RecordingAnswer:
    """What a model answers about one recording."""

    task: str
    question: str
    labels: tuple[str, ...]
    start_s: np.ndarray
    """Start of every window."""
    probabilities: np.ndarray
    """[windows labels], over the allowed answers."""
    greedy_valid: np.ndarray
    """Whether the model's own words were an allowed answer."""
    left_out: dict[str, int]
    """Windows that could not be asked about, by reason."""

    @property
    def recording_probabilities(self) -> np.ndarray:
        """Mean probability of every label over windows."""
        return np.asarray(self.probabilities.mean(axis=0))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "task": self.task,
            "question": self.question,
            "recording": dict(zip(self.labels, self.recording_probabilities.tolist(), strict=True)),
            "windows": [
                {"start_s": float(start), "probabilities": dict(zip(self.labels, row.tolist(), strict=True))}
                for start, row in zip(self.start_s, self.probabilities, strict=True)
            ],
            "invalid_answer_rate": float(1 - self.greedy_valid.mean()),
            "left_out": self.left_out,
        }

    def table(self) -> str:
        """Rows for a terminal."""
        width = max(12, *(len(label) + 2 for label in self.labels))
        lines = [self.question, "start (s)".rjust(10) + "".join(label.rjust(width) for label in self.labels)]
        for start, row in zip(self.start_s, self.probabilities, strict=True):
            lines.append(f"{start:10.1f}" + "".join(f"{value:{width}.3f}" for value in row))
        lines.append("recording".rjust(10) + "".join(f"{value:{width}.3f}" for value in self.recording_probabilities))
        lines += [f"left out: {number} windows ({reason})" for reason, number in self.left_out.items()]
        return "\n".join(lines)


@dataclass(frozen=True)
class FreeQuestion:
    """A question in a user's own words."""

    question: str
    options: tuple[str, ...] = ()
    """Answers to choose from; none: those of the task that is asked."""
    lettered: bool = False
    """Whether the options are listed in the question and answered by a letter."""


def predict_recording(
    model_folder: Path,
    path: Path,
    task_name: str | None = None,
    device: str = "cpu",
    *,
    question: FreeQuestion | None = None,
    option_orders: int = 1,
) -> RecordingAnswer:
    """Ask a tuned model about a recording, preprocessed as its training data was.

    Args:
        model_folder: model of stage 3.
        path: the recording.
        task_name: which task to ask; with a question of your own, as whose recordings this one is read.
        device: torch's name of it.
        question: asked in place of the task's.
        option_orders: orders of a lettered task's options over which probabilities are averaged.

    Raises:
        UserError: the model was not tuned, has no such task, the question cannot be asked, or the recording not used.
    """
    if option_orders < 1:
        raise UserError(f"--option-orders {option_orders}: expected 1 or more")
    model, values = load_neurolm(model_folder)
    task = _asked(model_folder, values, task_name, question, model.text_code)
    layout = layout_described(values["layouts"][task.task.data_set], str(model_folder))
    settings = build(PreprocessingConfig, values["preprocessing"], source=str(model_folder))
    recording = preprocess(layout.read_alone(path), settings, layout.mains_hz)
    window_s = float(getattr(layout, "window_s") or int(recording.duration_s))  # noqa: B009 - not in every layout's type
    stride_s = float(getattr(layout, "stride_s", None) or window_s)
    refuse_too_long(task, int(window_s), model.context)
    usable, left_out = [], dict[str, int]()
    for window in cut(recording, duration_s=window_s, stride_s=stride_s):
        if reason := unusable(window):
            left_out[reason] = left_out.get(reason, 0) + 1
        else:
            usable.append(window)
    if not usable:
        raise RecordingError(
            f"{path}: no usable window of {window_s:g} s ({recording.duration_s:g} s long; {left_out})"
        )
    windows = [StoredWindow(w.signal, w.channel_indices, task.task.data_set, "", "", w.start_s, None) for w in usable]
    likelihoods, is_valid = predict_windows(
        model.to(device), windows, task, torch.device(device), option_orders=option_orders
    )
    odds = np.exp(likelihoods - likelihoods.max(axis=1, keepdims=True))
    return RecordingAnswer(
        task=task.task.name,
        question=task.task.question,
        labels=task.labels,
        start_s=np.array([window.start_s for window in windows]),
        probabilities=odds / odds.sum(axis=1, keepdims=True),
        greedy_valid=is_valid,
        left_out=left_out,
    )


def _asked(
    model_folder: Path,
    values: Mapping[str, Any],
    task_name: str | None,
    question: FreeQuestion | None,
    code: TextCode,
) -> EncodedTask:
    """A task of the model's, or a question in its place."""
    names = values["tasks"]
    if not names:
        raise UserError(f"{model_folder}: not tuned on any task; give the model of stage 3 (instruct/model)")
    if task_name is not None and task_name not in names:
        raise UserError(f"{model_folder}: has no task {task_name!r}; it knows {', '.join(names)}")
    known = tasks_of_model(values, names, code)
    data_sets = {known[name].task.data_set for name in names}
    if task_name is None and len(names if question is None or not question.options else data_sets) > 1:
        why = "" if question is None else " that says what the question is about and how the recording is read"
        raise UserError(f"{model_folder}: knows {len(names)} tasks; choose one with --task{why}: {', '.join(names)}")
    task = known[task_name or names[0]]
    if question is None:
        return task
    if question.lettered and not question.options:
        raise UserError("--lettered: no options to list; give them with --options, or leave --lettered away")
    if not question.options:
        return encode_task(replace(task.task, question=question.question, paraphrases=()), code)
    if len(set(question.options)) < len(question.options):
        raise UserError(f"--options {' '.join(question.options)}: an option comes twice; say each once")
    own = {
        "name": "question",
        "data_set": task.task.data_set,
        "question": question.question,
        "answers": {option: option for option in question.options},
        "lettered": question.lettered,
    }
    return encode_task(build(Task, own, source="--question"), code)
