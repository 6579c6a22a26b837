"""Ray Data feeds training: shards to each worker's windows, in the computed order.

Every worker has a stream of its own: rows of a range are *chunks of steps*, and an actor turns a chunk into the windows
that `GlobalOrder` deals to that worker at those steps. Which windows make up a step is thus computed, never left to
scheduling; one execution serves a whole run; a resumed run starts its range at the resumed step. The module imports
nothing of the model, so that the processes which only read start quickly.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data
import ray.train

from neurolm.eeg.reading import ReadingPlan, StepWindows, step_share
from neurolm.eeg.shards import Store
from neurolm.eeg.tokens import token_columns, tokens_in
from neurolm.eeg.window_table import SignalType, WindowTable, part_schema, to_table
from neurolm.training.run_checkpoint import RunCheckpoints

WINDOWS_PER_CHUNK = 512
"""About how many windows of all workers one row of the range stands for; whole steps, and at least one."""
MAX_BLOCKS = 64
"""Blocks of the range: a reader's task goes through all chunks of one, giving out windows as it reads."""
BLOCK_BYTES = 16 * 2**20
"""Size of the blocks of windows that a reader gives out."""
STREAM_BUFFER_BYTES = 512 * 2**20
"""How far a worker's stream may read ahead in the object store."""
PAUSE_S = 0.05
"""Between two looks of Ray Data at what its readers have done."""


class Unhurried:
    """Lets Ray Data's scheduler, a thread of the training worker, rest after every look at its readers.

    Once the stream is as far ahead as it may be, the scheduler looks again at once, for ever, and holds the interpreter
    that the training step needs: steps of 0.10 s took 0.23 s.
    """

    def before_execution_starts(self, executor: Any) -> None:
        """Nothing to do."""

    def on_execution_step(self, executor: Any) -> None:
        """Rest."""
        time.sleep(PAUSE_S)

    def after_execution_succeeds(self, executor: Any) -> None:
        """Nothing to do."""

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        """Nothing to do."""


class StepReader:
    """A Ray Data actor that reads one worker's windows of a chunk of steps."""

    def __init__(self, plan: ReadingPlan, rank: int, world_size: int) -> None:
        store = Store.open(plan.store)
        self._source = plan.source(store)
        self._order = plan.order(store)
        self._source.keep_row_groups(self._order.row_groups_at_once(world_size))
        self._schema = _stream_schema(store.signal_dtype)
        self._rank = rank
        self._world_size = world_size

    def __call__(self, batch: dict[str, np.ndarray]) -> Iterator[pa.Table]:
        """One table a step: the windows as they are stored, with the step and their places in the global batch."""
        for start, stop in zip(batch["first_step"].tolist(), batch["stop_step"].tolist(), strict=True):
            for step in range(start, stop):
                rows, places = step_share(self._order, step, self._rank, self._world_size)
                own = {"place": places, "step": np.full(len(places), step)}
                windows = self._source.views(rows)
                table = to_table(windows, self._schema, own)
                tokens = token_columns([window.tokens for window in windows if window.tokens is not None])
                for name, column in tokens.items():
                    table = table.append_column(name, column)
                yield table


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
        stream.context.target_max_block_size = BLOCK_BYTES
        stream.context.custom_execution_callback_classes = [Unhurried]
        return stream


def step_chunks(checkpoints: RunCheckpoints, total_steps: int, batch_size: int) -> ray.data.Dataset:
    """The chunks of steps still to do.

    Ray Train calls this at every (re)start of the workers, before they run. So the checkpoint that they resume from is
    chosen here, once for the data and for all of them.
    """
    start, size = checkpoints.choose_for_workers().step, max(1, WINDOWS_PER_CHUNK // batch_size)
    chunks = [
        {"first_step": step, "stop_step": min(step + size, total_steps)}
        for step in range(start, max(total_steps, start + 1), size)
    ]
    return ray.data.from_items(chunks, override_num_blocks=min(len(chunks), MAX_BLOCKS))


def worker_steps(shard: ray.data.DataIterator, start: int, stop: int) -> Iterator[StepWindows]:
    """This worker's windows of the steps from ``start`` to before ``stop``; none where others take the whole batch."""
    step = start
    parts: list[StepWindows] = []
    for block in shard.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2):
        for part in _steps_of(block):
            while step < part.step:  # the step before it has all its windows, which the end of a block may have parted
                yield _together(step, parts)
                step, parts = step + 1, []
            parts += [part] if part.step == step else []
    while step < stop:
        yield _together(step, parts)
        step, parts = step + 1, []


def _together(step: int, parts: Sequence[StepWindows]) -> StepWindows:
    windows = [window for part in parts for window in part.windows]
    return StepWindows(step, windows, np.concatenate([np.empty(0, np.int64), *(part.places for part in parts)]))


def _steps_of(block: pa.Table) -> Iterator[StepWindows]:
    """The steps of a block, in order; signals are float32."""
    steps, places = block.column("step").to_numpy(), block.column("place").to_numpy()
    windows, tokens = WindowTable(block), tokens_in(block)
    ends = [*(np.flatnonzero(np.diff(steps)) + 1).tolist(), len(steps)]
    for first, end in zip([0, *ends], ends, strict=False):
        if first < end:
            found = [windows.window(place, tokens=tokens[place]) for place in range(first, end)]
            exact = [replace(window, signal=window.signal.astype(np.float32, copy=False)) for window in found]
            yield StepWindows(int(steps[first]), exact, places[first:end])


def _stream_schema(signal_dtype: SignalType) -> pa.Schema:
    schema = part_schema(signal_dtype)
    for name in ("row", "place", "step"):
        schema = schema.append(pa.field(name, pa.int64(), nullable=False))
    return schema
