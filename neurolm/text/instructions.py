"""Tasks as data: a question about a window and the answers that its labels stand for (paper, Table 5).

A plain task asks ``Question: ... Answer:`` and is answered by a word (`` Yes``). A lettered one lists its options,
``Options: (A) Wake. ... Answer: (``, and is answered by a letter and a bracket (``A)``). After the answer comes what
ends one in the model's text code (GPT-2, as released: a lone space and the end of the text); all of it carries loss.
"""

import difflib
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from pydantic import Field

from neurolm.config import UserError, config
from neurolm.text.code import TextCode


class TaskError(UserError):
    """A task that cannot be asked or answered as it stands; the message names the task."""


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
    lettered: bool = False
    """List the wordings as options (A), (B), ... and answer with the letter."""
    positive: str | None = None
    """Label that counts as positive in AUROC and AUC-PR; only with two labels."""
    num_prompt_targets: int = Field(default=0, ge=0)
    """How many ids at the end of the prompt carry loss too; the released code has one in HMC and TUEV."""

    @property
    def prompt(self) -> str:
        """All text before the answer."""
        if not self.lettered:
            return f"Question: {self.question} Answer:"
        options = " ".join(
            f"({letter}) {wording}."
            for letter, wording in zip(string.ascii_uppercase, self.answers.values(), strict=False)
        )
        return f"Question: {self.question} Options: {options} Answer: ("

    def answer(self, label: str) -> str:
        """The text that follows the prompt for a label."""
        if self.lettered:
            return f"{string.ascii_uppercase[list(self.answers).index(label)]})"
        return f" {self.answers[label]}"


@dataclass(frozen=True)
class TrainingText:
    """Prompt, answer and end as ids, for one class."""

    ids: tuple[int, ...]
    is_target: tuple[bool, ...]
    """Which ids carry loss; the prediction is made one place before."""


@dataclass(frozen=True)
class EncodedTask:
    """A task in ids; classes are in the order of the task's answers."""

    task: Task
    prompt_ids: tuple[int, ...]
    """[SEP] and the prompt."""
    answers: tuple[tuple[int, ...], ...]
    """Ids of each class's answer alone."""
    code: TextCode
    """What the ids mean; stages and scoring take [SEP], ends and the number of text ids from it."""

    @property
    def name(self) -> str:
        """Name of the task."""
        return self.task.name

    @property
    def labels(self) -> tuple[str, ...]:
        """Label of each class."""
        return tuple(self.task.answers)

    @property
    def positive_class(self) -> int | None:
        """Index of the positive class, None where no class is declared positive."""
        return None if self.task.positive is None else self.labels.index(self.task.positive)

    def class_index(self, label: str | None) -> int:
        """The class of a window's label. Raises TaskError for a label that the task has no answer for."""
        if label not in self.labels:
            raise TaskError(
                f"task {self.name}: a window of {self.task.data_set} is labelled {label!r}, but the task has answers "
                f"for {', '.join(self.labels)}; add the label to the task's answers or leave those windows out"
            )
        return self.labels.index(label)

    def training_text(self, class_index: int) -> TrainingText:
        """What stage 3 reads after the EEG tokens of a window of this class."""
        ids = (*self.prompt_ids, *self.answers[class_index], *self.code.answer_end)
        first_target = len(self.prompt_ids) - self.task.num_prompt_targets
        return TrainingText(ids=ids, is_target=tuple(place >= first_target for place in range(len(ids))))


def encode_task(task: Task, code: TextCode) -> EncodedTask:
    """A task's ids, checked so that each answer can be told from the others by its ids. Raises TaskError."""
    prompt = code.encode(task.prompt)
    if task.positive is not None and (len(task.answers) != 2 or task.positive not in task.answers):
        raise TaskError(
            f"task {task.name}: positive is {task.positive!r}; expected one of two labels, found the labels "
            f"{', '.join(task.answers)}"
        )
    if task.num_prompt_targets > len(prompt):
        raise TaskError(
            f"task {task.name}: num_prompt_targets is {task.num_prompt_targets}, the prompt has {len(prompt)} ids"
        )
    answers: dict[str, tuple[int, ...]] = {}
    for label in task.answers:
        text = task.answer(label)
        ids = code.encode(text)
        if not text.strip() or code.encode(task.prompt + text) != prompt + ids:
            raise TaskError(
                f"task {task.name}: the answer {text!r} of label {label!r} is empty or is written with other ids after "
                f"the prompt than alone; reword it"
            )
        answers[label] = tuple(ids)
    for label, ids_of_label in answers.items():
        for other, ids_of_other in answers.items():
            if label != other and ids_of_other[: len(ids_of_label)] == ids_of_label:
                raise TaskError(
                    f"task {task.name}: the answer {task.answer(label)!r} of label {label!r} is the beginning of "
                    f"{task.answer(other)!r} of label {other!r}, so the two cannot be told apart; reword one"
                )
    return EncodedTask(task=task, prompt_ids=(code.sep, *prompt), answers=tuple(answers.values()), code=code)


_WORKLOAD_QUESTION = "Is this EEG segment of high workload?"
_WORKLOAD_ANSWERS = {"rest": "No", "arithmetic": "Yes"}
_SLEEP_QUESTION = "Which sleep type does this EEG segment belong to?"
_SLEEP_ANSWERS = {"W": "Wake", "N1": "NREM-1", "N2": "NREM-2", "N3": "NREM-3", "R": "REM"}

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="tuab",
            data_set="tuab",
            question="Is this EEG segment abnormal?",
            answers={"normal": "No", "abnormal": "Yes"},
            positive="abnormal",
        ),
        Task(
            name="tuev",
            data_set="tuev",
            question="Which event type does this EEG segment belong to?",
            answers={
                "spsw": "spike and slow wave",
                "gped": "generalized periodic epileptiform discharge",
                "pled": "periodic lateralized epileptiform discharge",
                "eyem": "eye movement",
                "artf": "artifact",
                "bckg": "background",
            },
            lettered=True,
            num_prompt_targets=1,
        ),
        Task(
            name="seed",
            data_set="seed",
            question="Which emotion type does this EEG segment belong to?",
            answers={"positive": "Positive", "neutral": "Neutral", "negative": "Negative"},
        ),
        Task(
            name="hmc",
            data_set="hmc",
            question=_SLEEP_QUESTION,
            answers=_SLEEP_ANSWERS,
            lettered=True,
            num_prompt_targets=1,
        ),
        Task(
            name="workload",
            data_set="workload",
            question=_WORKLOAD_QUESTION,
            answers=_WORKLOAD_ANSWERS,
            positive="arithmetic",
        ),
        Task(
            name="tusl",
            data_set="tusl",
            question="Which type does this EEG segment belong to?",
            answers={"bckg": "background", "seiz": "seizure", "slow": "slowing"},
            lettered=True,
        ),
        Task(
            name="demo_workload",
            data_set="demo_workload",
            question=_WORKLOAD_QUESTION,
            answers=_WORKLOAD_ANSWERS,
            positive="arithmetic",
        ),
        Task(
            name="demo_sleep",
            data_set="demo_sleep",
            question=_SLEEP_QUESTION,
            answers=_SLEEP_ANSWERS,
            lettered=True,
            num_prompt_targets=1,
        ),
    )
}
"""The six tasks of the paper's Table 5 and the two of the demo, by name."""


def chosen_tasks(names: Iterable[str], own_tasks: Mapping[str, Task]) -> list[Task]:
    """Tasks by name: a user's own, or those above.

    Raises:
        TaskError: nobody defined a task of this name, or the user's own would hide one of the paper's.
    """
    if hidden := sorted(set(own_tasks) & set(TASKS)):
        raise TaskError(
            f"own_tasks: {', '.join(hidden)} is defined by neurolm, and results go by name; choose another name"
        )
    known = TASKS | {name: replace(task, name=name) for name, task in own_tasks.items()}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise TaskError(
                f"tasks: {name} not known{f', did you mean {near[0]}?' if near else ''}; known tasks: "
                f"{', '.join(sorted(known))}. Define others under own_tasks"
            )
    return [known[name] for name in names]
