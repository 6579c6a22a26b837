"""A recording in, answers out: per window and for the whole recording, with probabilities."""

from dataclasses import dataclass
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
from neurolm.training.assembly import load_neurolm
from neurolm.training.tasks import tasks_of_model


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


def predict_recording(
    model_folder: Path, path: Path, task_name: str | None = None, device: str = "cpu"
) -> RecordingAnswer:
    """Ask a tuned model about a recording, preprocessed as its training data was.

    Raises:
        UserError: the model was not tuned, has no such task, or the recording cannot be used.
    """
    model, values = load_neurolm(model_folder)
    names = values["tasks"]
    if not names:
        raise UserError(f"{model_folder}: not tuned on any task; give the model of stage 3 (instruct/model)")
    if task_name is None and len(names) > 1:
        raise UserError(f"{model_folder}: knows {len(names)} tasks; choose one with --task: {', '.join(names)}")
    if task_name is not None and task_name not in names:
        raise UserError(f"{model_folder}: has no task {task_name!r}; it knows {', '.join(names)}")
    task = tasks_of_model(values, [task_name or names[0]], model.text_code)[task_name or names[0]]
    layout = layout_described(values["layouts"][task.task.data_set], str(model_folder))
    settings = build(PreprocessingConfig, values["preprocessing"], source=str(model_folder))
    recording = preprocess(layout.read_alone(path), settings, layout.mains_hz)
    window_s = float(getattr(layout, "window_s") or int(recording.duration_s))  # noqa: B009 - not in every layout's type
    stride_s = float(getattr(layout, "stride_s", None) or window_s)
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
    likelihoods, is_valid = predict_windows(model.to(device), windows, task, torch.device(device))
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
