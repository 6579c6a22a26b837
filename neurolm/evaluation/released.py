"""The evaluation of the released code, to compare with published numbers; our own scores do without it.

It decodes five tokens, takes one word of the text and looks it up. A word that is no answer becomes -1, which counts
as "No" and ranks below it, or, of several classes, is the *last* class. AUROC and AUC-PR are those of hard answers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from neurolm.evaluation import metrics
from neurolm.evaluation.generation import write_answer
from neurolm.models.neurolm import NeuroLM
from neurolm.sequences import WindowGroup
from neurolm.text.code import TextCode
from neurolm.text.instructions import EncodedTask

UNREADABLE = -1
"""The class of a text that has no answer."""


class ReleasedAnswers(NamedTuple):
    """What was written about each window, and what the released code understands of it."""

    classes: NDArray[np.int64]
    """Class indices, or `UNREADABLE`."""
    texts: list[str]
    """The decoded tokens, whatever they are."""


@torch.no_grad()
def released_answers(
    model: NeuroLM, group: WindowGroup, task: EncodedTask, code: TextCode, text_start: int | None = None
) -> ReleasedAnswers:
    """Let the model write about windows of one shape, and read it, as the released code does."""
    written = write_answer(model, group, task.prompt_ids, mask="released", text_start=text_start).ids.tolist()
    classes = [parse_answer([*task.prompt_ids, *ids], task, code) for ids in written]
    return ReleasedAnswers(np.array(classes, dtype=np.int64), [code.decode(ids) for ids in written])


def parse_answer(ids: Sequence[int], task: EncodedTask, code: TextCode) -> int:
    """The class of a whole text, [SEP] first, by the word that stands where an answer should; or `UNREADABLE`."""
    prompt, answers = task.task.prompt, [task.task.answer(label) for label in task.labels]
    place = prompt.count(" ") + answers[0].startswith(" ")
    words = code.decode(ids[1:]).split(" ")
    word = words[place] if place < len(words) else ""
    expected = [(prompt + answer).split(" ")[place] for answer in answers]
    word = word[:3] if word.startswith("(") else word
    return expected.index(word) if word in expected else UNREADABLE


def released_metrics(
    labels: NDArray[np.integer], answers: NDArray[np.integer], num_classes: int
) -> dict[str, float | None]:
    """The scores that the released code reports for answers of which some may be `UNREADABLE`, under its names.

    Areas of a task of two classes are None if only one occurs; the released code fails there.
    """
    is_binary = num_classes == 2
    predicted = np.where(answers == UNREADABLE, 0 if is_binary else num_classes - 1, answers)
    confusion = metrics.confusion_matrix(labels, predicted, num_classes)
    accuracies: dict[str, float | None] = {
        "accuracy": float(np.trace(confusion) / confusion.sum()),
        "balanced_accuracy": float(metrics.balanced_accuracy(confusion)),
    }
    if is_binary:
        ranks = answers.astype(float)
        areas = {"roc_auc": metrics.auroc(labels == 1, ranks), "pr_auc": metrics.auc_pr(labels == 1, ranks)}
        return accuracies | areas
    return accuracies | {
        "cohen_kappa": float(metrics.cohen_kappa(confusion)),
        "f1_weighted": float(metrics.weighted_f1(confusion)),
    }


def released_scores(
    labels: NDArray[np.integer], answers: NDArray[np.integer], num_classes: int
) -> dict[str, float | None]:
    """`released_metrics`, and the share of answers that could not be read, which the released code never tells."""
    unreadable = float(np.mean(answers == UNREADABLE))
    return released_metrics(labels, answers, num_classes) | {"unreadable_answer_rate": unreadable}
