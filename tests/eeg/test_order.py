import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurolm.eeg.mixture import MixtureConfig
from neurolm.eeg.order import GlobalOrder, worker_slice
from neurolm.eeg.shards import WindowIndex


def index_of(group_sizes: list[int], first_row: int = 0, data_sets: list[str] | None = None) -> WindowIndex:
    num_windows = sum(group_sizes)
    names = np.full(num_windows, "x", dtype=object)
    return WindowIndex(
        rows=np.arange(first_row, first_row + num_windows),
        row_groups=np.repeat(np.arange(len(group_sizes)), group_sizes),
        data_set=names if data_sets is None else np.repeat(np.array(data_sets, dtype=object), group_sizes),
        label=names,
        subject=names,
        recording=names,
        start_s=np.zeros(num_windows),
        num_channels=np.full(num_windows, 19),
        num_times=np.full(num_windows, 800),
    )


GROUPS = st.lists(st.integers(1, 30), min_size=1, max_size=12)


@given(groups=GROUPS, batch_size=st.integers(1, 40), lanes=st.integers(1, 8), seed=st.integers(0, 9))
def test_every_window_once_an_epoch(groups: list[int], batch_size: int, lanes: int, seed: int) -> None:
    order = GlobalOrder(index_of(groups, 100), batch_size=batch_size, seed=seed, lanes=lanes)
    assert order.steps_per_epoch == int(np.ceil(sum(groups) / batch_size))
    for epoch in range(2):
        batches = [order.batch(epoch * order.steps_per_epoch + step) for step in range(order.steps_per_epoch)]
        assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
        assert sorted(np.concatenate(batches)) == list(range(100, 100 + sum(groups)))


@given(groups=GROUPS, batch_size=st.integers(1, 40), step=st.integers(0, 200), world_sizes=st.integers(1, 9))
def test_workers_share_out_the_same_batch(groups: list[int], batch_size: int, step: int, world_sizes: int) -> None:
    batch = GlobalOrder(index_of(groups), batch_size=batch_size, seed=3).batch(step)
    slices = [worker_slice(batch, rank, world_sizes) for rank in range(world_sizes)]
    np.testing.assert_array_equal(np.concatenate(slices), batch)
    assert max(map(len, slices)) - min(map(len, slices)) <= 1


@given(groups=GROUPS, batch_size=st.integers(1, 40), step=st.integers(0, 200))
def test_batches_are_equal_for_1_2_4_and_8_workers(groups: list[int], batch_size: int, step: int) -> None:
    """Every number of workers computes the batch anew, from any step on."""
    read = {}
    for world_size in (1, 2, 4, 8):
        orders = [GlobalOrder(index_of(groups), batch_size=batch_size, seed=3) for _ in range(world_size)]
        slices = [worker_slice(order.batch(step), rank, world_size) for rank, order in enumerate(orders)]
        read[world_size] = np.concatenate(slices).tolist()
    assert read[1] == read[2] == read[4] == read[8]


@given(groups=GROUPS, steps=st.lists(st.integers(0, 300), min_size=1, max_size=6))
def test_order_does_not_depend_on_what_was_asked_before(groups: list[int], steps: list[int]) -> None:
    walked = GlobalOrder(index_of(groups), batch_size=7, seed=1)
    for step in steps:
        fresh = GlobalOrder(index_of(groups), batch_size=7, seed=1)
        np.testing.assert_array_equal(walked.batch(step), fresh.batch(step))


def test_seeds_and_epochs_differ() -> None:
    index = index_of([50] * 4)
    one, other = (GlobalOrder(index, batch_size=200, seed=seed) for seed in (0, 1))
    assert (one.batch(0) != other.batch(0)).any()
    shuffled = GlobalOrder(index, batch_size=10, seed=0)
    assert (shuffled.batch(0) != shuffled.batch(shuffled.steps_per_epoch)).any()


def test_order_of_the_first_release_stays() -> None:
    order = GlobalOrder(index_of([4, 3, 3]), batch_size=4, seed=5, lanes=2)
    assert [order.batch(step).tolist() for step in range(3)] == [[7, 9, 3, 2], [8, 6, 4, 1], [5, 0]]


def test_every_batch_mixes_all_lanes_evenly() -> None:
    index = index_of([100] * 8)
    order = GlobalOrder(index, batch_size=32, seed=0)
    for step in range(order.steps_per_epoch):
        counts = np.bincount(index.row_groups[order.batch(step)], minlength=8)
        assert counts.min() >= 3
        assert counts.max() <= 5


def test_few_row_groups_are_in_use_at_a_time() -> None:
    index = index_of([50] * 60)
    order = GlobalOrder(index, batch_size=20, seed=0, lanes=4)
    used = [set(index.row_groups[order.batch(step)]) for step in range(order.steps_per_epoch)]
    assert max(map(len, used)) <= 8  # four lanes, each at most between two of its row groups
    last_use = {group: step for step, groups in enumerate(used) for group in groups}
    first_use = {group: step for step, groups in reversed(list(enumerate(used))) for group in groups}
    assert max(last_use[group] - first_use[group] for group in last_use) <= 11  # 50 windows at 5 a batch


def test_a_workers_slice_touches_few_row_groups() -> None:
    index = index_of([100] * 16)
    batch = GlobalOrder(index, batch_size=64, seed=0).batch(3)
    assert len(set(index.row_groups[worker_slice(batch, 0, 4)])) <= 6


def test_a_million_windows_start_anywhere_quickly() -> None:
    order = GlobalOrder(index_of([250] * 4000), batch_size=480, seed=0)
    begin = time.perf_counter()
    order.batch(17 * order.steps_per_epoch + 1234)
    first = time.perf_counter() - begin
    begin = time.perf_counter()
    for step in range(100):
        order.batch(17 * order.steps_per_epoch + 1235 + step)
    assert time.perf_counter() - begin < first / 5
    assert first < 10


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="no window"):
        GlobalOrder(index_of([]), batch_size=4, seed=0)
    with pytest.raises(ValueError, match="at least 1"):
        GlobalOrder(index_of([3]), batch_size=0, seed=0)
    with pytest.raises(ValueError, match="before the first"):
        GlobalOrder(index_of([3]), batch_size=2, seed=0).batch(-1)
    with pytest.raises(ValueError, match="rank 2 is not one of 2 workers"):
        worker_slice(np.arange(3), 2, 2)


MIXTURES = st.one_of(
    st.builds(MixtureConfig, temperature=st.floats(1.01, 50)),
    st.builds(MixtureConfig, weights=st.fixed_dictionaries({name: st.floats(0.5, 20) for name in ("a", "b", "c")})),
)
SETS = ["a", "b", "a", "c", "b"]
MIXED = st.lists(st.integers(5, 30), min_size=5, max_size=5)


def rows_of_epochs(order: GlobalOrder, epochs: int) -> np.ndarray:
    return np.concatenate([order.batch(step) for step in range(epochs * order.steps_per_epoch)])


@given(groups=MIXED, mixture=MIXTURES, batch_size=st.integers(1, 20), lanes=st.integers(1, 8))
def test_a_mixture_gives_each_data_set_its_share_and_repeats_no_window_before_all_were_seen(
    groups: list[int], mixture: MixtureConfig, batch_size: int, lanes: int
) -> None:
    index = index_of(groups, 100, SETS)
    order = GlobalOrder(index, batch_size=batch_size, seed=1, lanes=lanes, mixture=mixture)
    epochs = 4
    rows = rows_of_epochs(order, epochs)
    assert len(rows) == epochs * len(index)
    of_set = dict(zip(index.rows.tolist(), index.data_set, strict=True))
    counts = mixture.counts({name: int((index.data_set == name).sum()) for name in "abc"})
    assert sum(counts.values()) == len(index)
    for name in "abc":
        members = set(index.rows[index.data_set == name].tolist())
        for epoch in range(epochs):
            part = rows[epoch * len(index) : (epoch + 1) * len(index)]
            assert sum(of_set[row] == name for row in part.tolist()) == counts[name]
        # Batches are sorted within, so what is seen last before an own epoch ends may change places within a batch.
        seen = np.unique([row for row in rows.tolist() if of_set[row] == name], return_counts=True)[1]
        times = epochs * counts[name] / len(members)
        assert set(seen.tolist()) <= {int(times), int(np.ceil(times))}
        assert len(seen) == len(members) or times < 1


@given(groups=MIXED, mixture=MIXTURES, step=st.integers(0, 200))
def test_a_mixture_can_begin_at_any_step(groups: list[int], mixture: MixtureConfig, step: int) -> None:
    index = index_of(groups, 0, SETS)
    walked = GlobalOrder(index, batch_size=7, seed=1, mixture=mixture)
    for earlier in range(max(0, step - 20), step):
        walked.batch(earlier)
    fresh = GlobalOrder(index, batch_size=7, seed=1, mixture=mixture)
    np.testing.assert_array_equal(walked.batch(step), fresh.batch(step))


def test_a_mixture_is_even_within_an_epoch() -> None:
    index = index_of([100] * 5, 0, SETS)
    order = GlobalOrder(index, batch_size=50, seed=0, mixture=MixtureConfig(weights={"a": 1, "b": 3, "c": 1}))
    for step in range(20):
        sets = index.data_set[order.batch(step)]
        assert abs((sets == "b").sum() - 30) <= 2
        assert abs((sets == "c").sum() - 10) <= 2


@given(groups=MIXED, batch_size=st.integers(1, 20))
def test_proportional_is_the_order_without_a_mixture(groups: list[int], batch_size: int) -> None:
    index = index_of(groups, 0, SETS)
    one = GlobalOrder(index, batch_size=batch_size, seed=1)
    other = GlobalOrder(index, batch_size=batch_size, seed=1, mixture=MixtureConfig())
    np.testing.assert_array_equal(rows_of_epochs(one, 2), rows_of_epochs(other, 2))
