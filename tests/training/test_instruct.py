import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from neurolm.config import override
from neurolm.evaluation.answers import score_answers
from neurolm.evaluation.predicting import predict_windows
from neurolm.models.masks import eeg_text_mask
from neurolm.models.neurolm import NeuroLM
from neurolm.sequences import collate
from neurolm.text.bpe import gpt2_bpe
from neurolm.text.instructions import TASKS, EncodedTask, Task, encode_task
from neurolm.text.wording import WordingDraw
from neurolm.training.instruct import InstructLossConfig, InstructStage, mixed
from tests.tiny import MODEL, group_of, mixed_windows, stored_window, tasks, tiny_neurolm, total_counts


def uneven_task() -> EncodedTask:
    """Answers of one and of three ids."""
    answers = {"rest": "No", "arithmetic": "Very much so"}
    task = Task(name="uneven", data_set="workload", question="Is it hard?", answers=answers)
    return encode_task(task, gpt2_bpe())


def test_loss_is_that_of_answer_tokens_one_window_at_a_time() -> None:
    """So nothing depends on the other windows of a batch: text positions follow the window's own length."""
    stage = InstructStage(tiny_neurolm(), tasks(), InstructLossConfig())
    model, losses = stage.model, []
    for window in mixed_windows():
        task = next(one for one in tasks().values() if one.task.data_set == window.data_set)
        text = task.training_text(task.class_index(window.label))
        group = group_of([window])
        features = model.features(group.signal, group.channel_index, group.time_indices)
        ids = torch.tensor([text.ids])
        embeddings = torch.cat([model.embed_eeg(features, group.channel_index), model.embed_text(ids)], dim=1)
        num_eeg, num_text = len(group.time_index), len(text.ids)
        positions = torch.tensor([*group.time_index.tolist(), *(group.num_seconds + i for i in range(num_text))])
        hidden = model.hidden(embeddings, positions[None], eeg_text_mask(group.time_index, num_text))
        for place in range(num_text):
            if text.is_target[place]:
                logits = model.logits(hidden[0, num_eeg + place - 1])
                losses.append(F.cross_entropy(logits, ids[0, place]).item())
    batch = collate(mixed_windows(), np.arange(7), text=None, tasks=tasks())
    shares = stage(batch, total_counts([batch]))
    assert len(losses) == batch.counts["answer_targets"]
    assert float(shares["answer_loss"].detach()) == pytest.approx(np.mean(losses), rel=1e-5)


def test_windows_asked_in_different_words_in_one_pass_have_the_losses_of_a_pass_each() -> None:
    varied = replace(TASKS["hmc"], shuffle_options=True, paraphrases=("Which sleep type is it?",))
    task = encode_task(varied, gpt2_bpe())
    windows = [
        stored_window(2, 400, data_set="hmc", label=label, seed=seed)
        for seed, label in enumerate(["W", "N3", "R", "N1"])
    ]
    worded = functools.partial(WordingDraw(3), 11)
    stage = InstructStage(tiny_neurolm(), {"hmc": task}, InstructLossConfig(pooled_weight=0.5))
    places = np.arange(20, 24)
    batch = collate(windows, places, text=None, tasks={"hmc": task}, worded=worded)
    assert len(batch.groups) <= 2, "as many as there are lengths"
    totals = total_counts([batch])
    together = stage(batch, totals)
    each = []
    for number, window in enumerate(windows):
        # Without drawing anything: a task that is asked in these words, and nothing else.
        asked = worded(20 + number, task)
        alone = InstructStage(stage.model, {"hmc": asked}, stage.losses)
        each.append(alone(collate([window], np.arange(1), text=None, tasks={"hmc": asked}), totals))
    for name in ("loss", "answer_loss", "pooled_loss"):
        torch.testing.assert_close(together[name], torch.stack([one[name] for one in each]).sum(), rtol=1e-5, atol=1e-6)
    assert len({worded(20 + number, task).prompt_ids for number in range(4)}) > 1


def test_weights_of_tasks_scale_their_part_of_the_loss_and_not_what_is_reported() -> None:
    batch = collate(mixed_windows(), np.arange(7), text=None, tasks=tasks(), strata=("workload", "hmc"))
    plain = InstructStage(tiny_neurolm(), tasks(), InstructLossConfig(pooled_weight=1.0))
    weighted = InstructStage(plain.model, tasks(), InstructLossConfig(pooled_weight=1.0, task_weights={"hmc": 0.25}))
    totals = total_counts([batch])
    before, after = plain(batch, totals), weighted(batch, totals)
    torch.testing.assert_close(before["answer_loss"], after["answer_loss"], rtol=0, atol=0)
    workload, hmc = before["answer_loss/answer_targets"] / totals["answer_targets"]
    answers = after["loss"] - after["pooled_loss"]
    torch.testing.assert_close(answers.detach(), workload + 0.25 * hmc, rtol=1e-5, atol=0)
    without = InstructStage(plain.model, tasks(), InstructLossConfig(task_weights={"hmc": 0, "workload": 0}))
    assert float(without(batch, totals)["loss"].detach()) == 0


def test_padding_of_short_answers_changes_nothing() -> None:
    stage = InstructStage(tiny_neurolm(), {"uneven": uneven_task()}, InstructLossConfig())
    short = stored_window(label="rest", seed=1)
    together = group_of([short, stored_window(label="arithmetic", seed=2)], {"uneven": uneven_task()})
    alone = group_of([short], {"uneven": uneven_task()})
    states = stage.answer_states(together)
    assert len(states.targets) == together.num_answer_targets == 8
    expected = stage.answer_states(alone).before_targets
    torch.testing.assert_close(states.before_targets[:3], expected, rtol=1e-4, atol=1e-5)
    assert states.targets[:3].tolist() == [1400, 220, 50256]


def test_label_smoothing_spreads_over_all_classes() -> None:
    batch = collate([stored_window()], np.arange(1), text=None, tasks=tasks())
    stage = InstructStage(tiny_neurolm(), tasks(), InstructLossConfig(label_smoothing=0.2))
    states = stage.answer_states(batch.groups[0])
    log_probabilities = stage.model.logits(states.before_targets).log_softmax(-1)
    hard = -log_probabilities.gather(1, states.targets[:, None]).mean()
    expected = 0.8 * hard - 0.2 * log_probabilities.mean()
    torch.testing.assert_close(stage(batch, total_counts([batch]))["answer_loss"], expected.detach())


def test_the_pooled_loss_asks_the_mean_of_eeg_states_which_of_the_answers() -> None:
    batch = collate(mixed_windows(), np.arange(7), text=None, tasks=tasks())
    stage = InstructStage(tiny_neurolm(), tasks(), InstructLossConfig(pooled_weight=0.5))
    losses = []
    for group in batch.groups:
        states = stage.answer_states(group)
        assert group.label is not None and group.task is not None
        firsts = [answer[0] for answer in tasks()[group.task].answers]
        losses.append(F.cross_entropy(stage.model.logits(states.pooled)[:, firsts], group.label, reduction="sum"))
    shares = stage(batch, total_counts([batch]))
    torch.testing.assert_close(shares["pooled_loss"], torch.stack(losses).sum().detach() / 7)
    torch.testing.assert_close(
        shares["loss"].detach(), (shares["answer_loss"] + 0.5 * shares["pooled_loss"]), rtol=1e-5, atol=0
    )


def test_the_released_text_start_follows_the_longest_window_of_the_batch() -> None:
    """A window of 2 s beside one of 3 s: its text starts at 2, or as released at 3; alone both rules agree."""
    short, long = stored_window(2, 400), stored_window(1, 600, data_set="hmc", label="W")
    batch = collate([short, long], np.arange(2), text=None, tasks=tasks())
    alone = collate([short], np.arange(1), text=None, tasks=tasks())
    assert (batch.text_start("window"), batch.text_start("batch"), alone.text_start("batch")) == (None, 3, 2)

    losses = {}
    for rule in ("window", "batch"):
        model = NeuroLM(override(MODEL, {"text_start": rule}))
        model.load_state_dict(tiny_neurolm().state_dict())
        stage = InstructStage(model, tasks(), InstructLossConfig())
        losses[rule] = [float(stage(one, total_counts([one]))["answer_loss"].detach()) for one in (batch, alone)]
    assert losses["window"][1] == losses["batch"][1]
    assert losses["window"][0] != pytest.approx(losses["batch"][0], rel=1e-4)


def test_predictions_follow_the_same_rule() -> None:
    short, long = stored_window(2, 400), stored_window(1, 600, data_set="hmc", label="W")
    task, device = tasks()["workload"], torch.device("cpu")
    model = NeuroLM(override(MODEL, {"text_start": "batch"})).eval()
    model.load_state_dict(tiny_neurolm().state_dict())
    likelihoods, _ = predict_windows(model, [short, long], task, device)
    with torch.inference_mode():
        shifted = score_answers(model, group_of([short]), task, text_start=3).log_likelihoods
    np.testing.assert_allclose(likelihoods[0], shifted[0].double().numpy(), rtol=1e-4)
    assert not np.allclose(likelihoods[0], predict_windows(model, [short], task, device)[0][0], rtol=1e-4)


def test_mixup_gives_each_window_a_part_of_another_of_the_same_channels() -> None:
    torch.manual_seed(0)
    features = torch.randn(400, 6, 3)
    channels = torch.tensor([4, 7, 9]).repeat(2).expand(400, -1).clone()
    channels[100] = torch.tensor([4, 7, 8]).repeat(2)
    found = mixed(features, channels, alpha=0.5)
    apart = features.roll(1, 0) - features
    other = ((found - features) * apart).sum((1, 2)) / apart.square().sum((1, 2))
    torch.testing.assert_close(found, features + other[:, None, None] * apart)
    assert not other[100:102].any(), "nor is it mixed into others"
    assert float(other.mean()) == pytest.approx(0.5 / 2, abs=0.03), "Beta(3/2, 1/2) leaves a window 3/4 of itself"
    assert other.min() >= 0 and other.max() <= 1


def test_mixup_is_of_training_alone() -> None:
    batch = collate([stored_window(seed=one) for one in range(3)], np.arange(3), text=None, tasks=tasks())
    stage = InstructStage(tiny_neurolm(), tasks(), InstructLossConfig(mixup=1.0))
    plain = InstructStage(stage.model, tasks(), InstructLossConfig())
    totals = total_counts([batch])
    assert float(stage(batch, totals)["loss"].detach()) != float(plain(batch, totals)["loss"].detach())
    assert float(stage.eval()(batch, totals)["loss"].detach()) == float(plain.eval()(batch, totals)["loss"].detach())
