"""Tasks as data: a question about a window and the answers that its labels stand for (paper, Table 5).

A plain task asks ``Question: ... Answer:`` and is answered by a word (`` Yes``). A lettered one lists its options,
``Options: (A) Wake. ... Answer: (``, and is answered by a letter and a bracket (``A)``). After the answer comes what
ends one in the model's text code (GPT-2, as released: a lone space and the end of the text); all of it carries loss.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from neurolm.text.code import TextCode
from neurolm.text.task import Task, TaskError, Wording, refuse_unusable

__all__ = ["TASKS", "EncodedTask", "Task", "TaskError", "TrainingText", "chosen_tasks", "encode_task"]


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

    @property
    def longest_text(self) -> int:
        """Most ids that follow the EEG tokens of a window, in any of the task's wordings."""
        prompts = [self.worded(Wording(place)).prompt_ids for place in range(len(self.task.questions))]
        return max(map(len, prompts)) + max(map(len, self.answers)) + len(self.code.answer_end)

    def asks(self, data_set: str, label: str | None) -> bool:
        """Whether a window of this data set and label is asked; not where the label's meaning is to leave it out."""
        return data_set == self.task.data_set and label not in self.task.left_out

    def class_index(self, label: str | None) -> int:
        """The class that a window's label means. Raises TaskError for a label that the task has no answer for."""
        meaning = self.task.meaning(label)
        if meaning not in self.labels:
            raise TaskError(
                f"task {self.name}: a window of {self.task.data_set} is labelled {label!r}, but the task has answers "
                f"for {', '.join(self.labels)}; add the label to the task's answers or say in its label_map what it "
                "means (null leaves such windows out)"
            )
        return self.labels.index(meaning)

    def worded(self, wording: Wording) -> "EncodedTask":
        """The same task in other words: other ids of prompt and answers, the same classes."""
        if wording == Wording():
            return self
        prompt = self.code.encode(self.task.prompt_in(wording))
        answers = tuple(tuple(self.code.encode(self.task.answer(label, wording))) for label in self.labels)
        return replace(self, prompt_ids=(self.code.sep, *prompt), answers=answers)

    def training_text(self, class_index: int) -> TrainingText:
        """What stage 3 reads after the EEG tokens of a window of this class."""
        ids = (*self.prompt_ids, *self.answers[class_index], *self.code.answer_end)
        first_target = len(self.prompt_ids) - self.task.num_prompt_targets
        return TrainingText(ids=ids, is_target=tuple(place >= first_target for place in range(len(ids))))


def encode_task(task: Task, code: TextCode) -> EncodedTask:
    """A task's ids, checked so that each answer can be told from the others by its ids. Raises TaskError."""
    refuse_unusable(task)
    for place in range(len(task.questions)):
        _refuse_prompt(task, Wording(place), code)
    answers = {label: tuple(code.encode(task.answer(label))) for label in task.answers}
    for label, ids_of_label in answers.items():
        for other, ids_of_other in answers.items():
            if label != other and ids_of_other[: len(ids_of_label)] == ids_of_label:
                raise TaskError(
                    f"task {task.name}: the answer {task.answer(label)!r} of label {label!r} is the beginning of "
                    f"{task.answer(other)!r} of label {other!r}, so the two cannot be told apart; reword one"
                )
    prompt = code.encode(task.prompt)
    return EncodedTask(task=task, prompt_ids=(code.sep, *prompt), answers=tuple(answers.values()), code=code)


def _refuse_prompt(task: Task, wording: Wording, code: TextCode) -> None:
    """Answers must be written after a prompt with the ids that they have alone; options end before it. Raises."""
    prompt = code.encode(task.prompt_in(wording))
    if task.num_prompt_targets > len(prompt):
        raise TaskError(
            f"task {task.name}: num_prompt_targets is {task.num_prompt_targets}, the prompt has {len(prompt)} ids"
        )
    for label in task.answers:
        text = task.answer(label, wording)
        if not text.strip() or code.encode(task.prompt_in(wording) + text) != prompt + code.encode(text):
            raise TaskError(
                f"task {task.name}: the answer {text!r} of label {label!r} is empty or is written with other ids after "
                f"the prompt than alone; reword it"
            )


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
