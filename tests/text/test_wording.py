import math
import string
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from neurolm.text.bpe import gpt2_bpe
from neurolm.text.instructions import TASKS, encode_task
from neurolm.text.task import Task, Wording
from neurolm.text.wording import WordingDraw, drawn_wording, option_orders_of


def letters(number: int, *, shuffle: bool = True, paraphrases: tuple[str, ...] = ()) -> Task:
    answers = {f"label{place}": f"option number {place}" for place in range(number)}
    return Task(
        name="any",
        data_set="any",
        question="Which?",
        answers=answers,
        lettered=True,
        shuffle_options=shuffle,
        paraphrases=paraphrases,
    )


def option_behind(prompt: str, answer: str) -> str:
    """What a reader of the prompt understands by an answer such as ``B)``."""
    _, _, rest = prompt.partition(f"({answer} ")
    return rest.split(".")[0]


@given(number=st.integers(2, 26), seed=st.integers(0, 9), step=st.integers(0, 10**6), place=st.integers(0, 10**4))
def test_a_letter_means_the_option_that_stands_beside_it(number: int, seed: int, step: int, place: int) -> None:
    task = encode_task(letters(number), gpt2_bpe())
    asked = WordingDraw(seed)(step, place, task)
    prompt = task.code.decode(asked.prompt_ids[1:])
    for class_index, label in enumerate(task.labels):
        answer = task.code.decode(asked.answers[class_index])
        assert answer[0] in string.ascii_uppercase[:number]
        assert option_behind(prompt, answer) == task.task.answers[label]
    assert len(set(asked.answers)) == number and len(asked.prompt_ids) == len(task.prompt_ids)


@given(step=st.integers(0, 10**6), place=st.integers(0, 10**4), seed=st.integers(-5, 5))
def test_what_is_drawn_depends_on_seed_step_place_and_name_alone(step: int, place: int, seed: int) -> None:
    task = encode_task(letters(5, paraphrases=("Which one?",)), gpt2_bpe())
    draw = WordingDraw(seed)
    asked = draw(step, place, task)
    draw(step + 1, place, task)
    assert draw(step, place, task) is asked, "kept"
    assert WordingDraw(seed)(step, place, task) == asked
    assert drawn_wording(task.task, seed, step, place) == drawn_wording(task.task, seed, step, place)


def test_every_question_and_every_place_comes_equally_often() -> None:
    task = letters(3, paraphrases=("Which one?", "What?"))
    drawn = [drawn_wording(task, 0, step, place) for step in range(60) for place in range(50)]
    orders, questions = Counter(one.order for one in drawn), Counter(one.question for one in drawn)
    assert len(orders) == 6 and len(questions) == 3
    assert all(abs(count - 500) < 5 * math.sqrt(500) for count in orders.values())
    assert all(abs(count - 1000) < 5 * math.sqrt(1000) for count in questions.values())
    assert len({drawn_wording(task, seed, 7, 7) for seed in range(40)}) > 5


def test_a_task_that_does_not_vary_is_asked_as_it_stands() -> None:
    task = encode_task(TASKS["hmc"], gpt2_bpe())
    assert WordingDraw(0)(3, 4, task) is task


@given(number=st.integers(2, 6), rounds=st.integers(1, 4))
def test_at_evaluation_every_option_stands_equally_often_in_every_place(number: int, rounds: int) -> None:
    rounds = min(rounds, math.factorial(number - 1))
    wordings = option_orders_of(letters(number, shuffle=False), number * rounds)
    assert wordings[0] == Wording()
    orders = [one.order or tuple(range(number)) for one in wordings]
    assert len(set(orders)) == len(orders) == number * rounds
    for place in range(number):
        assert Counter(order[place] for order in orders) == dict.fromkeys(range(number), rounds)


def test_there_are_only_so_many_orders() -> None:
    assert len(set(option_orders_of(TASKS["tusl"], 100))) == 6
    assert option_orders_of(TASKS["tusl"], 1) == option_orders_of(TASKS["workload"], 4) == [Wording()]
    assert option_orders_of(TASKS["hmc"], 30) == option_orders_of(TASKS["hmc"], 40)[:30]
