import pytest

from neurolm.text.bpe import gpt2_bpe
from neurolm.text.instructions import TASKS, Task, TaskError, encode_task

SIX = ("tuab", "tuev", "seed", "hmc", "workload", "tusl")


def test_answers_are_the_words_or_letters_alone() -> None:
    bpe = gpt2_bpe()
    assert encode_task(TASKS["workload"], bpe).answers == ((1400,), (3363,))
    assert encode_task(TASKS["hmc"], bpe).answers == ((32, 8), (33, 8), (34, 8), (35, 8), (36, 8))


def test_the_demo_asks_the_published_questions() -> None:
    for demo, published in (("demo_workload", "workload"), ("demo_sleep", "hmc")):
        assert TASKS[demo].data_set == demo
        ours, theirs = encode_task(TASKS[demo], gpt2_bpe()), encode_task(TASKS[published], gpt2_bpe())
        assert (ours.prompt_ids, ours.answers, ours.labels) == (theirs.prompt_ids, theirs.answers, theirs.labels)


def test_classes_and_the_positive_one_go_by_label() -> None:
    workload = encode_task(TASKS["workload"], gpt2_bpe())
    assert workload.positive_class == workload.class_index("arithmetic") == 1
    assert encode_task(TASKS["hmc"], gpt2_bpe()).positive_class is None
    with pytest.raises(TaskError, match="labelled None, but the task has answers for rest, arithmetic"):
        workload.class_index(None)


def _task(**changes: object) -> Task:
    return Task(
        **({"name": "mine", "data_set": "mine", "question": "Which?", "answers": {"a": "One", "b": "Two"}} | changes)
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answers": {"a": "No", "b": "No doubt"}}, "' No' of label 'a' is the beginning of ' No doubt' of label 'b'"),
        ({"answers": {"a": "Same", "b": "Same"}}, "cannot be told apart"),
        ({"answers": {"a": "", "b": "Two"}}, "label 'a' is empty"),
        ({"positive": "c"}, "positive is 'c'; expected one of two labels"),
        ({"num_prompt_targets": 99}, "num_prompt_targets is 99"),
    ],
)
def test_tasks_that_cannot_work_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        encode_task(_task(**changes), gpt2_bpe())


def test_one_answer_is_no_question() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        _task(answers={"a": "One"})
