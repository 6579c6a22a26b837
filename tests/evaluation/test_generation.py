import torch

from neurolm.config import override
from neurolm.evaluation.generation import write_answer
from neurolm.evaluation.released import UNREADABLE, parse_answer, released_answers
from neurolm.models.neurolm import NeuroLM
from neurolm.text.bpe import gpt2_bpe
from tests.evaluation.test_answers import answerer, text_logits
from tests.tiny import MODEL, group_of, stored_window, tasks, tiny_neurolm


@torch.no_grad()
def test_each_token_is_the_likeliest_after_those_before() -> None:
    task, model = tasks()["hmc"], tiny_neurolm().eval()
    group = group_of([stored_window(3, 800, seed=seed) for seed in range(2)])
    written = write_answer(model, group, task.prompt_ids, num_tokens=4)
    assert written.ids.shape == (2, 4) and written.logits.shape == (2, 4, 50257)
    for row in range(2):
        text = list(task.prompt_ids)
        for step in range(4):
            logits = text_logits(model, group, row, text)[-1]
            torch.testing.assert_close(written.logits[row, step], logits, rtol=1e-5, atol=1e-5)
            text.append(int(logits.argmax()))
        assert written.ids[row].tolist() == text[len(task.prompt_ids) :]


@torch.no_grad()
def test_the_released_mask_is_right_for_one_token_and_wrong_after() -> None:
    task, group = tasks()["workload"], group_of([stored_window(2, 800)])
    padded = NeuroLM(override(MODEL, {"tokenizer.compat_pad_to": 20})).eval()
    padded.load_state_dict(tiny_neurolm().state_dict())
    right = write_answer(padded, group, task.prompt_ids)
    wrong = write_answer(padded, group, task.prompt_ids, mask="released")
    torch.testing.assert_close(right.logits[:, 0], wrong.logits[:, 0], rtol=1e-5, atol=1e-5)
    assert float((right.logits[:, 1] - wrong.logits[:, 1]).abs().max()) > 1e-3


@torch.no_grad()
def test_text_start_moves_the_text() -> None:
    task, group, model = tasks()["workload"], group_of([stored_window(2, 800)]), tiny_neurolm().eval()
    own = write_answer(model, group, task.prompt_ids, num_tokens=1)
    assert torch.equal(own.logits, write_answer(model, group, task.prompt_ids, num_tokens=1, text_start=4).logits)
    assert not torch.allclose(
        own.logits, write_answer(model, group, task.prompt_ids, num_tokens=1, text_start=9).logits
    )


def test_words_that_are_no_answer_are_unreadable() -> None:
    bpe = gpt2_bpe()
    for name, answer, expected in [
        ("workload", " Yes <|", 1),
        ("workload", " No", 0),
        ("workload", " Yes.", UNREADABLE),
        ("workload", "Yes", UNREADABLE),
        ("hmc", "C)something else", 2),
        ("hmc", "F) ", UNREADABLE),
        ("hmc", " A)", UNREADABLE),
    ]:
        task = tasks()[name]
        assert parse_answer([*task.prompt_ids, *bpe.encode(answer)], task, bpe) == expected, (name, answer)
    assert parse_answer(list(tasks()["workload"].prompt_ids), tasks()["workload"], bpe) == UNREADABLE


def test_released_answers_are_what_was_written_and_read() -> None:
    task = tasks()["workload"]
    group = group_of([stored_window(2, 600, seed=seed) for seed in range(3)])
    model = answerer(task, 1)
    written = write_answer(model, group, task.prompt_ids, mask="released").ids.tolist()
    expected = [parse_answer([*task.prompt_ids, *ids], task, gpt2_bpe()) for ids in written]
    found = released_answers(model, group, task, gpt2_bpe())
    assert found.classes.tolist() == expected
    assert found.texts == [gpt2_bpe().decode(ids) for ids in written]
