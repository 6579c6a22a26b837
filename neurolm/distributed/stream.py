"""Ray Data feeds training: shards to each worker's windows, in the computed order.

Every worker has a stream of its own: rows of a range are *chunks of steps*, and an actor turns a chunk into the windows
that `GlobalOrder` deals to that worker at those steps. Which windows make up a step is thus computed, never left to
scheduling; one execution serves a whole run; a resumed run starts its range at the resumed step. The module imports
nothing of the model, so that the processes which only read start quickly.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data
import ray.train

from neurolm.eeg.reading import ReadingPlan, StepWindows, step_share
from neurolm.eeg.shards import Store, StoredWindow
from neurolm.eeg.tokens import token_columns, tokens_in

_PLAIN_COLUMNS = ("data_set", "subject", "recording", "start_s", "label", "row")
_STREAM_SCHEMA = {
    "signal": pa.list_(pa.float32()),
    "channel_indices": pa.list_(pa.int16()),
    "data_set": pa.string(),
    "subject": pa.string(),
    "recording": pa.string(),
    "start_s": pa.float64(),
    "label": pa.string(),
    "row": pa.int64(),
    "place": pa.int64(),
    "step": pa.int64(),
}
STEPS_PER_CHUNK = 8
"""Steps that one row of the range stands for."""
STREAM_BUFFER_BYTES = 512 * 2**20
"""How far a worker's stream may read ahead in the object store."""
SNAPSHOT = "checkpoint_manager_snapshot.json"
"""Ray Train's own record of committed checkpoints, in a run's storage."""


class StepReader:
    """A Ray Data actor that reads one worker's windows of a chunk of steps."""

    def __init__(self, plan: ReadingPlan, rank: int, world_size: int) -> None:
        store = Store.open(plan.store)
        self._source = plan.source(store)
        self._order = plan.order(store)
        self._total = plan.total_steps(self._order)
        self._rank = rank
        self._world_size = world_size

    def __call__(self, batch: dict[str, np.ndarray]) -> Iterator[pa.Table]:
        """One table a step; its columns are the store's, with the step and the place in the global batch."""
        for start in batch["first_step"]:
            for step in range(start, min(start + STEPS_PER_CHUNK, self._total)):
                rows, places = step_share(self._order, step, self._rank, self._world_size)
                yield _to_table(step, self._source.read(rows), places)


class OrderedDataConfig(ray.train.DataConfig):
    """Gives worker r of W the stream of its own windows instead of a split of a shared one."""

    def __init__(self, plan: ReadingPlan, reader_cpus: float) -> None:
        options = ray.train.DataConfig.default_ingest_options()
        options.preserve_order = True
        options.resource_limits = options.resource_limits.copy(object_store_memory=STREAM_BUFFER_BYTES)
        super().__init__(datasets_to_split=[], execution_options=options)
        self._plan = plan
        self._reader_cpus = reader_cpus

    def configure(
        self, datasets: dict[str, ray.data.Dataset], world_size: int, *arguments: Any, **settings: Any
    ) -> list[dict[str, ray.data.DataIterator]]:
        """One iterator per worker. Called by Ray Train with the world size of the present worker group."""
        return [
            {name: self._stream(dataset, name, rank, world_size).iterator() for name, dataset in datasets.items()}
            for rank in range(world_size)
        ]

    def _stream(self, chunks: ray.data.Dataset, name: str, rank: int, world_size: int) -> ray.data.Dataset:
        stream = chunks.map_batches(
            StepReader,
            fn_constructor_args=(self._plan, rank, world_size),
            batch_size=1,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=1),
            num_cpus=self._reader_cpus,
        )
        stream.context.execution_options = self._resolve_execution_options(name)
        return stream


def step_chunks(run_folder: Path, total_steps: int) -> ray.data.Dataset:
    """The chunks of steps still to do; Ray Train calls this at every (re)start of the workers."""
    start = committed_step(run_folder)
    first_steps = [{"first_step": step} for step in range(start, max(total_steps, start + 1), STEPS_PER_CHUNK)]
    return ray.data.from_items(first_steps, override_num_blocks=len(first_steps))


def committed_step(run_folder: Path) -> int:
    """The step of the checkpoint that Ray Train resumes from; 0 where there is none."""
    path = run_folder / SNAPSHOT
    if not path.is_file():
        return 0
    latest = json.loads(path.read_text()).get("latest_checkpoint_result")
    return int(latest["metrics"]["step"]) if latest else 0


def worker_steps(shard: ray.data.DataIterator, start: int) -> Iterator[StepWindows]:
    """This worker's windows from step ``start`` on."""
    pending: list[pa.Table] = []
    pending_step = -1
    for block in shard.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2):
        steps = block.column("step").to_numpy()
        for step in np.unique(steps):
            part = block.filter(pa.array(steps == step))
            if step != pending_step and pending:
                yield from _complete(pending, pending_step, start)
                pending = []
            pending_step = int(step)
            pending.append(part)
    if pending:
        yield from _complete(pending, pending_step, start)


def _complete(parts: list[pa.Table], step: int, start: int) -> Iterator[StepWindows]:
    if step < start:
        return
    rows = [row for part in parts for row in _rows(part)]
    yield StepWindows(step, [window for window, _ in rows], np.array([place for _, place in rows], dtype=np.int64))


def _to_table(step: int, windows: Sequence[StoredWindow], places: np.ndarray) -> pa.Table:
    """Windows as plain Arrow columns; signals are flattened channel by channel."""
    columns = {name: [getattr(window, name) for window in windows] for name in _PLAIN_COLUMNS}
    columns["signal"] = [window.signal.reshape(-1) for window in windows]
    columns["channel_indices"] = [np.asarray(window.channel_indices, dtype=np.int16) for window in windows]
    columns["place"] = list(places)
    columns["step"] = [step] * len(windows)
    plain = {name: pa.array(columns[name], kind) for name, kind in _STREAM_SCHEMA.items()}
    return pa.table(plain | token_columns([window.tokens for window in windows if window.tokens is not None]))


def _rows(table: pa.Table) -> Iterator[tuple[StoredWindow, int]]:
    columns = {name: table.column(name).to_pylist() for name in (*_PLAIN_COLUMNS, "place")}
    signals, channels = table.column("signal"), table.column("channel_indices")
    for number, tokens in enumerate(tokens_in(table)):
        indices = channels[number].values.to_numpy()
        signal = signals[number].values.to_numpy().reshape(len(indices), -1)
        plain = {name: columns[name][number] for name in _PLAIN_COLUMNS}
        yield StoredWindow(signal=signal, channel_indices=indices, tokens=tokens, **plain), columns["place"][number]
