from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurolm.config import ConfigError, build
from neurolm.eeg.order import GlobalOrder
from neurolm.eeg.reading import StepWindows, read_steps
from neurolm.eeg.shards import Manifest, ShardWriter, Store, write_manifest
from neurolm.text.bpe import gpt2_bpe
from neurolm.text.corpus import CorpusConfig, TextCorpus
from neurolm.text.instructions import TASKS, encode_task
from neurolm.training.batches import BatchConfig, Batcher
from tests.tiny import mixed_windows, stored_window, tasks

SIZE, LENGTH, NUM_WINDOWS = 10, 8, 33


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """33 windows of two shapes in many small row groups."""
    folder = tmp_path_factory.mktemp("store")
    name = "train-workload-00000.parquet"
    with ShardWriter(folder / name, row_group_bytes=4000) as writer:
        writer.write(stored_window(1 + seed % 2, 200, seed=seed) for seed in range(NUM_WINDOWS))
    files = [{"name": name, "split": "train", "num_windows": NUM_WINDOWS, "sha256": ""}]
    write_manifest(folder, Manifest(data_digest="d", files=files, counts={}))
    return Store.open(folder)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> TextCorpus:
    path: Path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(" ".join(f"word{number}" for number in range(400)))
    return TextCorpus(CorpusConfig(path=path), gpt2_bpe())


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("micro_size", [None, 1, 3])
def test_any_number_of_workers_sees_the_same_global_batches(
    store: Store, corpus: TextCorpus, world_size: int, micro_size: int | None
) -> None:
    sizes = BatchConfig(size=SIZE, text_size=5, text_length=LENGTH, micro_size=micro_size)
    order = GlobalOrder(store.index("train"), batch_size=SIZE, seed=3)
    assert order.steps_per_epoch == 4
    whole = Batcher(sizes, corpus=corpus, tasks=None, seed=7)
    digests = {part.step: whole(part).window_digest for part in read_steps(store, order, range(8))}
    assert len(set(digests.values())) == 8
    seen: dict[int, dict[int, int]] = {}
    texts: dict[int, list[list[int]]] = {}
    for rank in range(world_size):
        batcher = Batcher(sizes, corpus=corpus, tasks=None, seed=7, rank=rank, world_size=world_size)
        for part in read_steps(store, order, range(8), rank, world_size):
            step = batcher(part)
            assert len(step.micro_batches) == batcher.num_micro_batches
            digests[part.step] -= step.window_digest
            assert step.num_windows == len(part.windows) == step.counts["windows"]
            rows = {int(place): window.row for place, window in zip(part.places, part.windows, strict=True)}
            in_batches = [p for one in step.micro_batches for group in one.groups for p in group.position.tolist()]
            assert sorted(in_batches) == sorted(rows)
            assert not rows.keys() & seen.setdefault(part.step, {}).keys()
            seen[part.step] |= rows
            for one in step.micro_batches:
                if micro_size is not None:
                    assert sum(len(group.signal) for group in one.groups) <= micro_size
                assert one.text is not None
                texts.setdefault(part.step, []).extend(one.text.tolist())
    assert set(digests.values()) == {0}, "the workers' digests add up to that of the global batch"
    for step, rows in seen.items():
        assert [rows[place] for place in range(len(rows))] == order.batch(step).tolist()
        assert texts[step] == corpus.batch(step, 5, LENGTH, seed=7).tolist()
    for first in (0, 4):  # each training epoch has every window once
        rows_of_epoch = [row for step in range(first, first + 4) for row in seen[step].values()]
        assert sorted(rows_of_epoch) == list(range(NUM_WINDOWS))


def test_a_stream_can_begin_at_any_step(store: Store) -> None:
    order = GlobalOrder(store.index("train"), batch_size=SIZE, seed=3)
    whole = list(read_steps(store, order, range(8), rank=1, world_size=2))
    fresh = GlobalOrder(store.index("train"), batch_size=SIZE, seed=3)
    for part, again in zip(whole[5:], read_steps(store, fresh, range(5, 8), rank=1, world_size=2), strict=True):
        assert part.step == again.step
        np.testing.assert_array_equal(part.places, again.places)
        assert [window.row for window in part.windows] == [window.row for window in again.windows]


@given(
    size=st.integers(2, 40),
    micro_size=st.none() | st.integers(1, 40),
    world_size=st.integers(1, 5),
    left=st.integers(0, 7),
)
@settings(max_examples=60, deadline=None)
def test_counts_add_up_and_no_window_is_lost(size: int, micro_size: int | None, world_size: int, left: int) -> None:
    windows = mixed_windows()[:left]  # a last batch may be smaller than the workers are many
    counts: dict[str, int] = {}
    numbers = set()
    for rank in range(world_size):
        start, stop = rank * left // world_size, (rank + 1) * left // world_size
        sizes = BatchConfig(size=size, micro_size=micro_size)
        batcher = Batcher(sizes, corpus=None, tasks=tasks(), seed=0, rank=rank, world_size=world_size)
        step = batcher(StepWindows(0, windows[start:stop], np.arange(start, stop)))
        numbers.add(len(step.micro_batches))
        assert all(one.text is None for one in step.micro_batches)
        for name, count in step.counts.items():
            counts[name] = counts.get(name, 0) + count
    assert len(numbers) == 1, "workers would wait for one another"
    assert (counts["windows"], counts["text_tokens"]) == (left, 0)
    tokens = [window.signal.shape[0] * window.signal.shape[1] // 200 for window in windows]
    assert counts["eeg_tokens"] == sum(tokens)


def test_windows_of_one_shape_share_a_forward_pass() -> None:
    batcher = Batcher(BatchConfig(size=7), corpus=None, tasks=tasks(), seed=0)
    (batch,) = batcher(StepWindows(0, mixed_windows(), np.arange(7))).micro_batches
    found = {(group.num_channels, group.num_seconds, group.task): group.position.tolist() for group in batch.groups}
    assert found == {(2, 2, "workload"): [0, 1, 3], (3, 2, "workload"): [2], (1, 3, "hmc"): [4, 5, 6]}
    assert all(group.signal.dtype == torch.float32 for group in batch.groups)


def test_text_crops_can_be_a_ratio_of_the_windows() -> None:
    assert BatchConfig(size=64, text_ratio=0.25).num_crops == 16
    assert BatchConfig(size=3, text_ratio=0.5).num_crops == 2
    assert BatchConfig(size=3, text_ratio=0).num_crops == BatchConfig(size=3).num_crops == 0
    assert BatchConfig(size=3, text_size=7).num_crops == 7
    with pytest.raises(ConfigError, match="two rules for the same number"):
        build(BatchConfig, {"size": 4, "text_size": 2, "text_ratio": 1}, source="test")


def asked_at(step: int, world_size: int, micro_size: int | None) -> dict[int, list[int]]:
    """What the window at each place of a step reads and answers, by a run on so many workers."""
    varied = {"hmc": encode_task(replace(TASKS["hmc"], shuffle_options=True), gpt2_bpe())}
    windows = [stored_window(1, 400, data_set="hmc", label=label, seed=1) for label in ("W", "N1", "N2", "N3", "R") * 2]
    found: dict[int, list[int]] = {}
    for rank in range(world_size):
        batcher = Batcher(
            BatchConfig(size=10, micro_size=micro_size),
            corpus=None,
            tasks=varied,
            seed=4,
            rank=rank,
            world_size=world_size,
        )
        start, stop = rank * 10 // world_size, (rank + 1) * 10 // world_size
        batch = batcher(StepWindows(step, windows[start:stop], np.arange(start, stop)))
        alone = [batch.alone(number).groups[0] for number in range(stop - start)]
        groups = [group for one in batch.micro_batches for group in one.groups]
        for group in (*groups, *alone):
            assert group.texts is not None
            for place, ids in zip(group.position.tolist(), group.texts.ids.tolist(), strict=True):
                assert found.setdefault(place, ids) == ids, "a window alone is asked the same"
    return found


def test_options_are_shuffled_alike_on_any_number_of_workers_and_again_after_a_restart() -> None:
    asked = asked_at(8, 1, None)
    assert len(asked) == 10 and len({tuple(ids) for ids in asked.values()}) > 5
    for world_size, micro_size in ((1, 3), (2, None), (3, 2)):
        assert asked_at(8, world_size, micro_size) == asked
    assert asked_at(9, 1, None) != asked
