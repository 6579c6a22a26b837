"""Ray Data gives every worker the windows of the computed order, on any number of workers and from any step."""

from pathlib import Path

import numpy as np
import pytest

from neurolm.distributed.stream import OrderedDataConfig, step_chunks, worker_steps
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
    (stream,) = OrderedDataConfig(plan, reader_cpus=0.1).configure({"train": chunks}, 1)
    read = list(read_steps(store, order, range(8)))
    for streamed, indexed in zip(worker_steps(stream["train"], 0, 8), read, strict=True):
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
