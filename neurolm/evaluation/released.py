"""The evaluation of the released code, to compare with published numbers; nothing else here uses it.

It decodes five tokens, takes one word of the text and looks it up. A word that is no answer becomes -1, which counts
as "No" and ranks below it, or, of several classes, is the *last* class. AUROC and AUC-PR are those of hard answers.
"""

from collections.abc import Sequence

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


@torch.no_grad()
def released_answers(
    model: NeuroLM, group: WindowGroup, task: EncodedTask, code: TextCode, text_start: int | None = None
) -> NDArray[np.int64]:
    """What the released code understands of each window's answer: a class or `UNREADABLE`."""
    written = write_answer(model, group, task.prompt_ids, mask="released", text_start=text_start)
    return np.array(
        [parse_answer([*task.prompt_ids, *ids], task, code) for ids in written.ids.tolist()], dtype=np.int64
    )


def parse_answer(ids: Sequence[int], task: EncodedTask, code: TextCode) -> int:
    """The class of a whole text, [SEP] first, by the word that stands where an answer should; or `UNREADABLE`."""
    prompt, answers = task.task.prompt, [task.task.answer(label) for label in task.labels]
    place = prompt.count(" ") + answers[0].startswith(" ")
    words = code.decode(ids[1:]).split(" ")
    word = words[place] if place < len(words) else ""
    expected = [(prompt + answer).split(" ")[place] for answer in answers]
    word = word[:3] if word.startswith("(") else word
    return expected.index(word) if word in expected else UNREADABLE


def released_metrics(labels: NDArray[np.integer], answers: NDArray[np.integer], num_classes: int) -> dict[str, float]:
    """The scores that the released code reports for answers of which some may be `UNREADABLE`.

    Raises:
        ValueError: a task of two classes has only one among its labels.
    """
    if num_classes == 2:
        confusion = metrics.confusion_matrix(labels, np.maximum(answers, 0), 2)
        ranks = answers.astype(float)
        areas = {"roc_auc": metrics.auroc(labels == 1, ranks), "pr_auc": metrics.auc_pr(labels == 1, ranks)}
        known = {name: area for name, area in areas.items() if area is not None}
        if len(known) < len(areas):
            raise ValueError("hard answers cannot be ranked: all labels are of one class")
        return known | {
            "accuracy": float(np.trace(confusion) / confusion.sum()),
            "balanced_accuracy": float(metrics.balanced_accuracy(confusion)),
        }
    predicted = np.where(answers == UNREADABLE, num_classes - 1, answers)
    confusion = metrics.confusion_matrix(labels, predicted, num_classes)
    return {
        "accuracy": float(np.trace(confusion) / confusion.sum()),
        "balanced_accuracy": float(metrics.balanced_accuracy(confusion)),
        "cohen_kappa": metrics.cohen_kappa(confusion),
        "f1_weighted": metrics.weighted_f1(labels, predicted, num_classes),
    }
