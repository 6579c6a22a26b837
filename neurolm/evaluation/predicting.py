"""Ask a model a task's question about windows of a store."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from neurolm.eeg.reading import WindowSource
from neurolm.eeg.shards import StoredWindow, WindowIndex
from neurolm.evaluation.answers import score_in_wordings
from neurolm.evaluation.predictions import Predictions
from neurolm.evaluation.released import UNREADABLE, ReleasedAnswers, released_answers
from neurolm.models.neurolm import NeuroLM
from neurolm.sequences import Batch, collate
from neurolm.text.asked import classes_of_windows, windows_of_task
from neurolm.text.instructions import EncodedTask
from neurolm.text.wording import option_orders_of

WithPasses = Callable[[Batch], Batch]
"""Adds groups without windows, where all workers must make the same passes (see `neurolm.training.passes`)."""


def predict_windows(
    model: NeuroLM,
    windows: Sequence[StoredWindow],
    task: EncodedTask,
    device: torch.device,
    with_passes: WithPasses | None = None,
    option_orders: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihood of every answer [windows answers] and whether the greedy answer is one of them [windows].

    With several ``option_orders`` a lettered task is asked once in each, and the logarithm of the mean probability
    among the allowed answers is what comes back.
    """
    wordings = [task.worded(one) for one in option_orders_of(task.task, option_orders)]
    likelihoods = np.zeros((len(windows), len(task.labels)))
    is_valid = np.zeros(len(windows), dtype=bool)
    batch = collate(windows, np.arange(len(windows)), text=None, tasks=None)
    text_start = batch.text_start(model.config.text_start)
    batch = (batch if with_passes is None else with_passes(batch)).to(device)
    with torch.no_grad():  # inference mode would leave tensors behind that ZeRO-3 cannot train with
        for group in batch.groups:
            scores = score_in_wordings(model, group, wordings, text_start)
            places = group.position.cpu().numpy()
            likelihoods[places] = scores.log_likelihoods.double().cpu().numpy()
            is_valid[places] = scores.greedy_valid.cpu().numpy()
    return likelihoods, is_valid


def released_windows(
    model: NeuroLM, windows: Sequence[StoredWindow], task: EncodedTask, device: torch.device
) -> ReleasedAnswers:
    """The same windows by the released protocol: five tokens are written for each, a pass a token."""
    classes = np.full(len(windows), UNREADABLE, dtype=np.int64)
    texts = [""] * len(windows)
    batch = collate(windows, np.arange(len(windows)), text=None, tasks=None).to(device)
    with torch.inference_mode():
        for group in batch.groups:
            text_start = batch.text_start(model.config.text_start)
            found = released_answers(model, group, task, model.text_code, text_start)
            for place, answer, text in zip(group.position.tolist(), found.classes, found.texts, strict=True):
                classes[place], texts[place] = answer, text
    return ReleasedAnswers(classes, texts)


def predict_split(
    model: NeuroLM,
    source: WindowSource,
    index: WindowIndex,
    tasks: Mapping[str, EncodedTask],
    *,
    split: str,
    batch_size: int,
    device: torch.device,
    rank: int = 0,
    world_size: int = 1,
    released_protocol: bool = False,
    with_passes: WithPasses | None = None,
    option_orders: int = 1,
) -> dict[str, Predictions]:
    """Predictions of this worker's windows of a split, for every task whose data set is in the index.

    Windows are read from ``source``: the store that the index is of, or its EEG tokens.
    With ``released_protocol`` every window is also asked as the released code does; ``with_passes`` is not for that.
    For ``option_orders`` see `predict_windows`.
    """
    found = {}
    for name, task in tasks.items():
        asked = windows_of_task(index, task.task)
        mine = asked.take(np.arange(len(asked.rows)) % world_size == rank)
        most = len(mine.rows) if with_passes is None else math.ceil(len(asked.rows) / world_size)
        likelihoods, is_valid = [], []
        released: list[ReleasedAnswers] = []
        for start in range(0, most, batch_size):
            windows = source.read(mine.rows[start : start + batch_size])
            scores, valid = predict_windows(model, windows, task, device, with_passes, option_orders)
            if released_protocol:
                released.append(released_windows(model, windows, task, device))
            likelihoods.append(scores)
            is_valid.append(valid)
        found[name] = Predictions(
            task=name,
            labels=task.labels,
            positive_class=task.positive_class,
            split=split,
            row=mine.rows,
            recording=mine.recording,
            subject=mine.subject,
            start_s=mine.start_s,
            label_index=classes_of_windows(mine, task.task),
            log_likelihoods=np.concatenate(likelihoods) if likelihoods else np.zeros((0, len(task.labels))),
            greedy_valid=np.concatenate(is_valid) if is_valid else np.zeros(0, dtype=bool),
            released_answer=np.concatenate([one.classes for one in released]) if released else None,
            released_text=np.array([text for one in released for text in one.texts], object) if released else None,
        )
    return found
