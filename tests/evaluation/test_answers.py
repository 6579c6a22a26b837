from dataclasses import replace

import pytest
import torch

from neurolm.evaluation.answers import AnswerScores, score_answers, score_in_wordings
from neurolm.models.masks import eeg_text_mask, eeg_text_positions
from neurolm.models.neurolm import NeuroLM
from neurolm.sequences import WindowGroup
from neurolm.text.bpe import gpt2_bpe
from neurolm.text.instructions import EncodedTask, Task, encode_task
from neurolm.text.wording import option_orders_of
from tests.tiny import group_of, stored_window, tasks, tiny_neurolm

UNEVEN = Task(
    name="uneven",
    data_set="workload",
    question="How hard is it?",
    answers={"a": "No", "b": "Very much", "c": "Very well so"},
)


def answerer(task: EncodedTask, seed: int) -> NeuroLM:
    """A random model that only ever writes tokens of the task's answers, in any order."""
    model = tiny_neurolm(seed).eval()
    allowed = sorted({one for answer in task.answers for one in answer})
    with torch.no_grad():
        head = model.language_model.head.weight
        kept = 4 * head[allowed]
        head.zero_()
        head[allowed] = kept
    return model


def text_logits(model: NeuroLM, group: WindowGroup, row: int, text: list[int]) -> torch.Tensor:
    """Logits of all ids after each token of one window's text, by a forward pass of its own."""
    features = model.features(group.signal[row : row + 1], group.channel_index[row : row + 1], group.time_index[None])
    eeg = model.embed_eeg(features, group.channel_index[row : row + 1])
    embeddings = torch.cat([eeg, model.embed_text(torch.tensor([text]))], dim=1)
    positions = eeg_text_positions(group.time_index, len(text))
    hidden = model.hidden(embeddings, positions[None], eeg_text_mask(group.time_index, len(text)))
    return model.logits(hidden[0, -len(text) :])[:, :50257]


def greedy(model: NeuroLM, group: WindowGroup, row: int, task: EncodedTask) -> list[int]:
    """Decode as many tokens as the longest answer has, one at a time."""
    text = list(task.prompt_ids)
    for _ in range(max(map(len, task.answers))):
        text.append(int(text_logits(model, group, row, text)[-1].argmax()))
    return text[len(task.prompt_ids) :]


@torch.no_grad()
def test_one_pass_equals_a_pass_for_each_answer() -> None:
    for task in (tasks()["workload"], tasks()["hmc"], encode_task(UNEVEN, gpt2_bpe())):
        model, group = tiny_neurolm().eval(), group_of([stored_window(3, 800, seed=seed) for seed in range(4)])
        scores = score_answers(model, group, task)
        assert scores.log_likelihoods.shape == (4, len(task.answers))
        for row in range(4):
            for index, answer in enumerate(task.answers):
                text = [*task.prompt_ids, *answer]
                logits = text_logits(model, group, row, text).log_softmax(-1)[len(task.prompt_ids) - 1 : -1]
                expected = logits.gather(1, torch.tensor(answer)[:, None]).sum()
                torch.testing.assert_close(scores.log_likelihoods[row, index], expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_greedy_answers_are_those_that_decoding_writes() -> None:
    found = set()
    for asked in (tasks()["workload"], tasks()["hmc"], encode_task(UNEVEN, gpt2_bpe())):
        for seed in range(4):
            model = answerer(asked, seed)
            group = group_of([stored_window(2, 600, seed=10 * seed + window) for window in range(3)])
            # Every other time, the last answer is what the model writes for the first window.
            last = tuple(greedy(model, group, 0, asked)) if seed % 2 else asked.answers[-1]
            task = replace(asked, answers=(*asked.answers[:-1], last))
            scores = score_answers(model, group, task)
            for row in range(3):
                written = greedy(model, group, row, task)
                expected = [written[: len(answer)] == list(answer) for answer in task.answers]
                assert scores.is_greedy[row].tolist() == expected
                assert bool(scores.greedy_valid[row]) == any(expected)
                found.add((task.name, any(expected)))
    # Both outcomes were seen where several tokens have to come out right.
    assert {("hmc", True), ("hmc", False), ("uneven", True), ("uneven", False)} <= found


@torch.no_grad()
def test_an_eeg_code_is_no_answer() -> None:
    task, model = tasks()["workload"], tiny_neurolm().eval()
    group = group_of([stored_window()])
    before = score_answers(model, group, task)
    model.language_model.head.weight[50257:] *= 1000
    after = score_answers(model, group, task)
    assert torch.equal(before.log_likelihoods, after.log_likelihoods)
    assert float(after.log_likelihoods.exp().sum()) < 1


@torch.no_grad()
def test_probabilities_are_averaged_over_orders_of_the_options() -> None:
    model, group, task = (
        tiny_neurolm().eval(),
        group_of([stored_window(2, 600, seed=s) for s in range(3)]),
        tasks()["hmc"],
    )
    wordings = [task.worded(one) for one in option_orders_of(task.task, 7)]
    each = [score_answers(model, group, one) for one in wordings]
    expected = torch.stack([one.log_likelihoods.double().exp() for one in each])
    expected = (expected / expected.sum(-1, keepdim=True)).mean(0)
    found = score_in_wordings(model, group, wordings)
    torch.testing.assert_close(found.log_likelihoods.exp(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.log_likelihoods.exp().sum(-1), torch.ones(3, dtype=torch.float64))
    assert torch.equal(found.is_greedy, each[0].is_greedy)
    one = score_in_wordings(model, group, [task])
    assert torch.equal(one.log_likelihoods, each[0].log_likelihoods)


def test_a_liking_for_letters_cancels_out_over_as_many_orders_as_there_are_options(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def likes(model: NeuroLM, group: WindowGroup, task: EncodedTask, text_start: int | None) -> AnswerScores:
        letters = torch.tensor([float(answer[0]) for answer in task.answers])
        return AnswerScores(-letters.expand(len(group), -1), torch.zeros(len(group), len(letters), dtype=torch.bool))

    monkeypatch.setattr("neurolm.evaluation.answers.score_answers", likes)
    task, group = tasks()["hmc"], group_of([stored_window(2, 600)])
    found = score_in_wordings(tiny_neurolm(), group, [task.worded(one) for one in option_orders_of(task.task, 5)])
    torch.testing.assert_close(found.log_likelihoods.exp(), torch.full((1, 5), 0.2, dtype=torch.float64))
