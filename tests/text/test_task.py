from typing import Any

import pytest

from neurolm.config import ConfigError, build
from neurolm.text.bpe import gpt2_bpe
from neurolm.text.instructions import TASKS, encode_task
from neurolm.text.task import Task, TaskError, TaskSettings, Wording

SLEEP: dict[str, Any] = {
    "name": "depth",
    "data_set": "hmc",
    "question": "How deep is the sleep in this EEG segment?",
    "answers": {"light": "light sleep", "deep": "deep sleep", "R": "dream sleep"},
    "label_map": {"N1": "light", "N2": "light", "N3": "deep", "W": None},
    "lettered": True,
}


def sleep(**changes: Any) -> Task:
    return Task(**(SLEEP | changes))


def test_several_labels_mean_one_class_and_some_are_left_out() -> None:
    task = encode_task(sleep(), gpt2_bpe())
    assert [task.class_index(label) for label in ("N1", "N2", "N3", "R", "light")] == [0, 0, 1, 2, 0]
    assert task.task.left_out == ("W",)
    assert [task.asks("hmc", label) for label in ("N1", "W", None)] == [True, False, True]
    assert not task.asks("workload", "N1")
    for label in ("W", "N4", None):
        with pytest.raises(TaskError, match=rf"labelled {label!r}, .*say in its label_map what it means"):
            task.class_index(label)


def test_letters_follow_the_places_of_the_options() -> None:
    """Deep sleep is class 1; listed last it is (C)."""
    task, turned = sleep(), Wording(order=(2, 0, 1))
    assert task.prompt_in(turned) == (
        "Question: How deep is the sleep in this EEG segment? "
        "Options: (A) dream sleep. (B) light sleep. (C) deep sleep. Answer: ("
    )
    assert [task.answer(label, turned) for label in task.answers] == ["B)", "C)", "A)"]
    assert [task.answer(label) for label in task.answers] == ["A)", "B)", "C)"]


def test_words_stay_the_same_in_a_paraphrase() -> None:
    task = encode_task(sleep(paraphrases=("Which depth of sleep is this?",)), gpt2_bpe())
    other = task.worded(Wording(question=1))
    assert task.code.decode(other.prompt_ids[1:]).startswith("Question: Which depth of sleep is this? Options: (A) l")
    assert (other.prompt_ids[0], other.answers, other.labels) == (task.code.sep, task.answers, task.labels)
    assert task.worded(Wording()) is task
    assert task.longest_text == len(task.prompt_ids) + 2 + 2 > len(other.prompt_ids) + 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_map": {"N1": "shallow"}}, "label_map has N1: shallow; its classes are light, deep, R"),
        ({"label_map": {"R": "deep"}}, "no label can mean R"),
        ({"label_map": {"R": None}}, "no label can mean R"),
        ({"question": " "}, "1 of its questions are empty"),
        ({"paraphrases": ("Deep?", "Deep?")}, "a paraphrase says what the question or another one says"),
        ({"paraphrases": (SLEEP["question"],)}, "a paraphrase says what"),
        ({"metric": "auc_pr"}, "metric auc_pr needs a positive class"),
        ({"lettered": False, "shuffle_options": True}, "shuffle_options, but no options are listed"),
    ],
)
def test_tasks_that_contradict_themselves_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=f"task depth: {message}"):
        encode_task(sleep(**changes), gpt2_bpe())


def test_a_run_changes_how_a_task_is_asked_and_judged_and_nothing_else() -> None:
    settings = build(TaskSettings, {"shuffle_options": True, "metric": "cohen_kappa"}, source="test")
    task = settings.of(TASKS["hmc"])
    assert (task.shuffle_options, task.metric, task.paraphrases) == (True, "cohen_kappa", ())
    assert TaskSettings().of(TASKS["hmc"]) == TASKS["hmc"]
    with pytest.raises(ConfigError, match="answers: no such setting"):
        build(TaskSettings, {"answers": {}}, source="test")
