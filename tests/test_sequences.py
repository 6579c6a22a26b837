from dataclasses import replace

import numpy as np
import pytest
import torch

from neurolm.eeg.shards import StoredWindow
from neurolm.sequences import AnswerTexts, WindowError, collate, patches
from neurolm.text.bpe import gpt2_bpe
from neurolm.text.instructions import TASKS, EncodedTask, TaskError, encode_task
from neurolm.text.task import Wording
from tests.tiny import mixed_windows, stored_window, tasks


def test_tokens_are_time_major_and_in_units_of_100_microvolt() -> None:
    """Two channels, two seconds; the signal is 1000 µV times channel plus 100 µV times second."""
    signal = np.repeat([[0.0, 100.0], [1000.0, 1100.0]], 200, axis=1).astype(np.float32)
    window = StoredWindow(signal, np.array([39, 2], dtype=np.int16), "any", "s", "r", 0.0, None)
    batch = collate([window, window], np.array([4, 7]), text=None, tasks=None)
    (group,) = batch.groups
    assert group.signal.shape == (2, 4, 200)
    assert group.signal[0].mean(-1).tolist() == [0.0, 10.0, 1.0, 11.0]
    assert group.time_index.tolist() == [0, 0, 1, 1]
    assert group.channel_index.tolist() == [[39, 2, 39, 2]] * 2
    assert group.position.tolist() == [4, 7]
    assert (group.num_channels, group.num_seconds, group.task, group.label) == (2, 2, None, None)


def test_patches_keep_the_points_of_a_second_in_order() -> None:
    signal = np.arange(800, dtype=np.float32).reshape(2, 400)
    expected = np.stack([signal[0, :200], signal[1, :200], signal[0, 200:], signal[1, 200:]]) / 100
    np.testing.assert_array_equal(patches(signal), expected)


def test_groups_are_of_one_shape_and_task() -> None:
    batch = collate(mixed_windows(), np.arange(7), text=None, tasks=tasks())
    found = {(g.num_channels, g.num_seconds, g.task): g.position.tolist() for g in batch.groups}
    assert found == {(2, 2, "workload"): [0, 1, 3], (3, 2, "workload"): [2], (1, 3, "hmc"): [4, 5, 6]}
    labels = [g.label.tolist() for g in batch.groups if g.label is not None]
    assert labels == [[0, 1, 1], [0], [0, 3, 4]]


def test_counts_by_hand() -> None:
    """Targets: 3 windows of 2 channels and one of 3, once each; 3 windows of 1 channel, twice. Answers: 3 or 5 ids."""
    text = np.zeros((2, 6), dtype=np.int64)
    batch = collate(mixed_windows(), np.arange(7), text=text, tasks=tasks())
    assert batch.counts == {
        "windows": 7,
        "eeg_tokens": 3 * 4 + 6 + 3 * 3,
        "eeg_targets": 3 * 2 + 3 + 3 * 2,
        "answer_targets": 4 * 3 + 3 * 5,
        "text_tokens": 2 * 5,
    }


def test_a_batch_may_be_empty() -> None:
    batch = collate([], np.array([], dtype=np.int64), text=None, tasks=tasks()).to("cpu")
    assert batch.groups == () and set(batch.counts.values()) == {0}


def test_moving_moves_everything() -> None:
    batch = collate(mixed_windows(), np.arange(7), text=np.zeros((1, 4)), tasks=tasks()).to("meta")
    assert batch.text is not None and batch.text.is_meta
    for group in batch.groups:
        assert group.label is not None
        tensors = (group.signal, group.channel_index, group.time_index, group.position, group.label)
        assert all(tensor.is_meta for tensor in tensors)
    assert batch.counts["windows"] == 7


@pytest.mark.parametrize(("num_times", "length"), [(401, "2.005 s"), (100, "0.5 s"), (0, "0.0 s")])
def test_windows_of_broken_seconds_are_refused(num_times: int, length: str) -> None:
    with pytest.raises(WindowError, match=rf"recording r3 of workload.*{num_times} time points are {length}"):
        collate([stored_window(2, num_times, seed=3)], np.arange(1), text=None, tasks=None)


def test_windows_that_no_task_asks_about_are_refused() -> None:
    window = stored_window(data_set="elsewhere", seed=3)
    with pytest.raises(WindowError, match=r"recording r3: no task asks about the data set elsewhere; .* hmc, workload"):
        collate([window], np.arange(1), text=None, tasks=tasks())


def test_labels_without_an_answer_are_refused() -> None:
    with pytest.raises(TaskError, match=r"task workload: .* labelled 'drowsy'"):
        collate([stored_window(label="drowsy")], np.arange(1), text=None, tasks=tasks())


def test_a_window_is_asked_every_task_of_its_data_set() -> None:
    asked = {"first": tasks()["workload"], "second": tasks()["workload"]}
    batch = collate([stored_window()], np.arange(1), text=None, tasks=asked)
    assert len(batch.groups) == 2 and torch.equal(batch.groups[0].signal, batch.groups[1].signal)


def test_windows_asked_in_words_of_one_length_share_a_group_that_says_what_each_is_asked() -> None:
    """Places 0 and 1 get other orders of the options, place 2 a shorter question."""
    hmc = encode_task(replace(TASKS["hmc"], paraphrases=("Which sleep is this?",)), gpt2_bpe())
    wordings = [Wording(order=(4, 3, 2, 1, 0)), Wording(order=(1, 0, 2, 3, 4)), Wording(question=1)]

    def worded(place: int, task: EncodedTask) -> EncodedTask:
        return task.worded(wordings[place - 5])

    windows = [stored_window(1, 400, data_set="hmc", label=label) for label in ("W", "N1", "N3")]
    batch = collate(windows, np.arange(5, 8), text=None, tasks={"hmc": hmc}, worded=worded)
    assert [group.position.tolist() for group in batch.groups] == [[5, 6], [7]]
    bpe = gpt2_bpe()
    for group in batch.groups:
        assert group.texts is not None and group.label is not None
        assert group.num_answer_targets == int(group.texts.is_target.sum()) == 5 * len(group)
        for row, place in enumerate(group.position.tolist()):
            text = bpe.decode(group.texts.ids[row, 1:].tolist())
            asked = hmc.task.prompt_in(wordings[place - 5])
            answer = hmc.task.answer(windows[place - 5].label or "", wordings[place - 5])
            assert text == f"{asked}{answer} <|endoftext|>"
            assert group.texts.num_prompt == 1 + len(bpe.encode(asked))
    assert [group.label.tolist() for group in batch.groups if group.label is not None] == [[0, 1], [3]]
    assert all(group.texts is not None and group.texts.ids.is_meta for group in batch.to("meta").groups)


def test_windows_asked_in_the_tasks_own_words_carry_no_text() -> None:
    batch = collate(mixed_windows(), np.arange(7), text=None, tasks=tasks(), worded=lambda place, task: task)
    assert all(group.texts is None for group in batch.groups)


def test_texts_of_classes_are_ended_and_go_on_without_loss() -> None:
    answers = {"rest": "No", "arithmetic": "Very much so"}
    task = encode_task(replace(TASKS["workload"], answers=answers), gpt2_bpe())
    texts = AnswerTexts.of_classes(task)
    prompt = list(task.prompt_ids)
    very, much, so = gpt2_bpe().encode(" Very much so")
    assert texts.ids.tolist() == [[*prompt, 1400, 220, 50256, 50256, 50256], [*prompt, very, much, so, 220, 50256]]
    none = [False] * len(prompt)
    assert texts.is_target.tolist() == [[*none, True, True, True, False, False], [*none, *[True] * 5]]
    assert texts.rows(torch.tensor([1, 1])).ids.tolist() == [texts.ids[1].tolist()] * 2


def test_a_window_is_not_asked_what_its_label_is_left_out_of() -> None:
    light = encode_task(replace(TASKS["hmc"], name="light", answers={"N1": "Yes", "R": "No"}, lettered=False,
                                num_prompt_targets=0, label_map={"W": None, "N3": None}), gpt2_bpe())  # fmt: skip
    windows = [stored_window(1, 400, data_set="hmc", label=label) for label in ("W", "N1", "R")]
    batch = collate(windows, np.arange(3), text=None, tasks={"hmc": tasks()["hmc"], "light": light})
    assert {group.task: group.position.tolist() for group in batch.groups} == {"hmc": [0, 1, 2], "light": [1, 2]}
