"""Ray Data gives every worker the windows of the computed order, on any number of workers and from any step."""

import time
from pathlib import Path

import numpy as np
import pytest

from neurolm.distributed import stream
from neurolm.distributed.stream import OrderedDataConfig, Unhurried, step_chunks, worker_steps
from neurolm.eeg.reading import ReadingPlan, read_steps
from neurolm.eeg.shards import Store
from neurolm.training.run_checkpoint import Part, RunCheckpoints
from tests.tiny import write_tiny_store

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> ReadingPlan:
    store = write_tiny_store(tmp_path_factory.mktemp("store"), num_windows=23)
    return ReadingPlan(store, None, batch_size=6, epochs=3, seed=5)


def rows_by_step(plan: ReadingPlan, folder: Path, world_size: int, total_steps: int) -> dict[int, list[int]]:
    """Rows of every step in the order of places, put together from the streams of all workers."""
    checkpoints = RunCheckpoints(str(folder), "run")
    chunks = step_chunks(checkpoints, total_steps, plan.batch_size)
    start = checkpoints.chosen().step
    iterators = OrderedDataConfig(plan, reader_cpus=0.1).configure({"train": chunks}, world_size)
    placed: dict[int, dict[int, int]] = {}
    for streams in iterators:
        parts = list(worker_steps(streams["train"], start, total_steps))
        assert [part.step for part in parts] == list(range(start, total_steps))
        for part in parts:
            for place, window in zip(part.places.tolist(), part.windows, strict=True):
                assert place not in placed.setdefault(part.step, {})
                placed[part.step][place] = window.row
    return {step: [rows[place] for place in sorted(rows)] for step, rows in placed.items()}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks, blocks of the range and blocks of windows, some of which end within a step."""
    monkeypatch.setattr("neurolm.distributed.stream.WINDOWS_PER_CHUNK", 12)
    monkeypatch.setattr("neurolm.distributed.stream.MAX_BLOCKS", 2)
    monkeypatch.setattr("neurolm.distributed.stream.BLOCK_BYTES", 40_000)


def test_window_ids_are_equal_for_1_2_4_and_8_workers(plan: ReadingPlan, tmp_path: Path, ray_cluster: None) -> None:
    store = Store.open(plan.store)
    order = plan.order(store)
    total = plan.total_steps(order)
    expected = {step: order.batch(step).tolist() for step in range(total)}
    assert total == 12
    for world_size in (1, 2, 4, 8):
        assert rows_by_step(plan, tmp_path, world_size, total) == expected


def test_stream_carries_the_signals_of_the_store(plan: ReadingPlan, tmp_path: Path, ray_cluster: None) -> None:
    store = Store.open(plan.store)
    order = plan.order(store)
    chunks = step_chunks(RunCheckpoints(str(tmp_path), "run"), 8, plan.batch_size)
    (shard,) = OrderedDataConfig(plan, reader_cpus=0.1).configure({"train": chunks}, 1)
    read = list(read_steps(store, order, range(8)))
    for streamed, indexed in zip(worker_steps(shard["train"], 0, 8), read, strict=True):
        for one, other in zip(streamed.windows, indexed.windows, strict=True):
            np.testing.assert_array_equal(one.signal, other.signal)
            np.testing.assert_array_equal(one.channel_indices, other.channel_indices)
            assert (one.row, one.label, one.subject, one.start_s) == (
                other.row,
                other.label,
                other.subject,
                other.start_s,
            )


def test_resumed_stream_begins_at_the_newest_whole_checkpoint(
    plan: ReadingPlan, tmp_path: Path, ray_cluster: None
) -> None:
    order = plan.order(Store.open(plan.store))
    checkpoints = RunCheckpoints(str(tmp_path), "run")
    for step in (7, 9):
        scratch = checkpoints.scratch(step, 0)
        Part(0, 1, step, {}, {}).write(scratch)
        path = checkpoints.commit(scratch, checkpoints.new_name(step))
    (Path(path) / "part-0.json").unlink()
    rows = rows_by_step(plan, tmp_path, 2, 12)
    assert rows == {step: order.batch(step).tolist() for step in range(7, 12)}


def test_a_stream_that_is_far_enough_ahead_leaves_the_interpreter_alone(
    tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody takes windows for two seconds: left to itself, Ray Data looks at its readers more than 2000 times."""
    looks = 0

    class Counted(Unhurried):
        def on_execution_step(self, executor: object) -> None:
            nonlocal looks
            looks += 1
            super().on_execution_step(executor)

    monkeypatch.setattr(stream, "Unhurried", Counted)
    monkeypatch.setattr(stream, "WINDOWS_PER_CHUNK", 512)
    monkeypatch.setattr(stream, "BLOCK_BYTES", 2 * 2**20)
    monkeypatch.setattr(stream, "STREAM_BUFFER_BYTES", 8 * 2**20)  # 80 steps
    store = write_tiny_store(tmp_path / "store", num_windows=600)
    plan = ReadingPlan(store, None, batch_size=32, epochs=100, seed=5)
    total = plan.total_steps(plan.order(Store.open(store)))
    chunks = step_chunks(RunCheckpoints(str(tmp_path), "run"), total, plan.batch_size)
    (streams,) = OrderedDataConfig(plan, reader_cpus=0.1).configure({"train": chunks}, 1)
    steps = worker_steps(streams["train"], 0, total)
    next(steps)
    time.sleep(2)
    looks, began = 0, time.perf_counter()
    time.sleep(2)
    assert 0 < looks <= (time.perf_counter() - began) / stream.PAUSE_S + 1
    assert [next(steps).step for _ in range(20)] == list(range(1, 21))
