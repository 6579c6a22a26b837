import numpy as np
import pytest
import torch

from neurolm.eeg.shards import StoredWindow
from neurolm.sequences import WindowError, collate, patches
from neurolm.text.instructions import TaskError
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
