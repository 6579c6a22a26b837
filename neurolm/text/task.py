"""A task as its user states it: the question, the answers, what the labels of the data set mean, how it is judged."""

import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field

from neurolm.config import UserError, config

Metric = Literal["balanced_accuracy", "auroc", "auc_pr", "cohen_kappa", "weighted_f1"]
"""Scores by which a task may be judged; the fields of ``TaskResult``."""


class TaskError(UserError):
    """A task that cannot be asked or answered as it stands; the message names the task."""


@dataclass(frozen=True)
class Wording:
    """One way to ask a task: its question or a paraphrase, and the order of its options."""

    question: int = 0
    """Place among the question itself and its paraphrases."""
    order: tuple[int, ...] | None = None
    """Classes in the order in which they are listed as options; None: the order of the answers."""


@config
class Task:
    """One question asked of every window of one data set."""

    name: str = ""
    """Key of the task in configs and results; a task of your own has it from its place in ``own_tasks``."""
    data_set: str
    """Name of the data set whose windows are asked."""
    question: str
    """The question itself, with its question mark."""
    answers: dict[str, str] = Field(min_length=2, max_length=len(string.ascii_uppercase))
    """Wording of the answer for each label, in the order of the classes."""
    label_map: dict[str, str | None] = Field(default_factory=dict)
    """What labels of the data set mean here: ``{N1: light, N2: light, W: null}``.

    Several may mean one class. null leaves windows out, which is counted. A label that is not named means itself.
    """
    lettered: bool = False
    """List the wordings as options (A), (B), ... and answer with the letter."""
    shuffle_options: bool = False
    """In training, list the options of a lettered task in an order drawn for every window (paper, section 3.4)."""
    paraphrases: tuple[str, ...] = ()
    """Other words for the question; training draws one of them, or the question itself, for every window."""
    positive: str | None = None
    """Label that counts as positive in AUROC and AUC-PR; only with two labels."""
    metric: Metric | None = None
    """Validation metric by which this task chooses the checkpoint; null: the run's ``selection``."""
    num_prompt_targets: int = Field(default=0, ge=0)
    """How many ids at the end of the prompt carry loss too; the released code has one in HMC and TUEV."""

    @property
    def prompt(self) -> str:
        """All text before the answer."""
        return self.prompt_in(Wording())

    @property
    def questions(self) -> tuple[str, ...]:
        """The question and its paraphrases."""
        return (self.question, *self.paraphrases)

    @property
    def varies(self) -> bool:
        """Whether training asks it in more than one way."""
        return self.shuffle_options or bool(self.paraphrases)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Labels of the data set whose windows are not asked."""
        return tuple(label for label, meaning in self.label_map.items() if meaning is None)

    def prompt_in(self, wording: Wording) -> str:
        """All text before the answer, in other words."""
        question = self.questions[wording.question]
        if not self.lettered:
            return f"Question: {question} Answer:"
        wordings = list(self.answers.values())
        options = " ".join(
            f"({letter}) {wordings[one]}."
            for letter, one in zip(string.ascii_uppercase, self._order(wording), strict=False)
        )
        return f"Question: {question} Options: {options} Answer: ("

    def answer(self, label: str, wording: Wording = Wording()) -> str:
        """The text that follows the prompt for a class; a letter is that of the place at which the class is listed."""
        if not self.lettered:
            return f" {self.answers[label]}"
        return f"{string.ascii_uppercase[self._order(wording).index(list(self.answers).index(label))]})"

    def meaning(self, label: str | None) -> str | None:
        """What a label of the data set means: a class, None for windows that are left out, or an unknown label."""
        return label if label is None else self.label_map.get(label, label)

    def _order(self, wording: Wording) -> Sequence[int]:
        return range(len(self.answers)) if wording.order is None else wording.order


@config
class TaskSettings:
    """What a run may change about one of its tasks without making it another task; null leaves it as it is."""

    shuffle_options: bool | None = None
    """List the options of a lettered task in an order drawn for every window in training."""
    paraphrases: tuple[str, ...] | None = None
    """Other words for the question, drawn for every window in training."""
    metric: Metric | None = None
    """Validation metric by which this task chooses the checkpoint."""

    def of(self, task: Task) -> Task:
        """The task with these settings."""
        return replace(task, **{name: value for name, value in vars(self).items() if value is not None})


def refuse_unusable(task: Task) -> None:
    """Find what is wrong with a task before any text is written in ids. Raises TaskError."""
    classes = f"its classes are {', '.join(task.answers)}"
    if blank := [question for question in task.questions if not question.strip()]:
        raise TaskError(f"task {task.name}: {len(blank)} of its questions are empty; write them out or leave them away")
    if len(set(task.questions)) < len(task.questions):
        raise TaskError(f"task {task.name}: a paraphrase says what the question or another one says; leave it away")
    if task.positive is not None and (len(task.answers) != 2 or task.positive not in task.answers):
        raise TaskError(
            f"task {task.name}: positive is {task.positive!r}; expected one of two labels, found the labels "
            f"{', '.join(task.answers)}"
        )
    if task.metric == "auc_pr" and task.positive is None:
        raise TaskError(f"task {task.name}: metric auc_pr needs a positive class; set positive, or another metric")
    if task.shuffle_options and not task.lettered:
        raise TaskError(f"task {task.name}: shuffle_options, but no options are listed; set lettered: true")
    if unknown := {label: meaning for label, meaning in task.label_map.items() if meaning not in (None, *task.answers)}:
        told = ", ".join(f"{label}: {meaning}" for label, meaning in unknown.items())
        raise TaskError(f"task {task.name}: label_map has {told}; {classes}, or null to leave windows out")
    meant = {*task.label_map.values(), *(set(task.answers) - set(task.label_map))}
    if without := [label for label in task.answers if label not in meant]:
        raise TaskError(
            f"task {task.name}: no label can mean {', '.join(without)}, as label_map gives it another meaning; map a "
            "label to it or take its answer out"
        )
