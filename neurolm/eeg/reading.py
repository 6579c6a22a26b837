"""Which windows a run reads at which step, and reading them: a plan small enough to send to any process.

Nothing here knows torch or a model, so the processes that only read start quickly.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from neurolm.config import UserError
from neurolm.eeg.mixture import MixtureConfig, Readings, data_set_sizes, part_of
from neurolm.eeg.order import GlobalOrder, worker_slice
from neurolm.eeg.shards import Store, StoredWindow, WindowIndex
from neurolm.eeg.token_store import TokenStore


class WindowSource(Protocol):
    """What gives windows by row number: a store of signals, or the EEG tokens beside it."""

    def read(self, rows: NDArray[np.int64] | Sequence[int]) -> list[StoredWindow]:
        """Windows in the order asked."""
        ...

    def views(self, rows: NDArray[np.int64] | Sequence[int]) -> list[StoredWindow]:
        """The same, as views of decoded row groups that nobody may change."""
        ...

    def keep_row_groups(self, number: int) -> None:
        """Make room for so many decoded row groups."""
        ...


@dataclass(frozen=True)
class StepWindows:
    """One worker's windows of one step, with their places in the global batch."""

    step: int
    windows: Sequence[StoredWindow]
    places: NDArray[np.int64]


@dataclass(frozen=True)
class ReadingPlan:
    """The training windows of a run and the order in which they are read."""

    store: Path
    data_sets: tuple[str, ...] | None
    """Data sets that are read; None: all of the store."""
    batch_size: int
    epochs: int
    seed: int
    mixture: MixtureConfig | None = None
    """How often each data set is seen; None: every window once in a training epoch."""
    tokens: Path | None = None
    """Folder of the EEG tokens that are read in place of the store's signals; None: signals are read."""
    left_out: tuple[tuple[str, str], ...] = ()
    """Data set and label of windows that nobody asks about; they are in no batch."""
    min_steps: int = 0
    """So few windows that ``epochs`` are fewer steps are read more often."""
    max_steps: int | None = None
    """So many windows that ``epochs`` are more steps are read less often, perhaps not all."""

    def source(self, store: Store) -> WindowSource:
        """What the windows are read from. Raises TokenStoreError."""
        return store if self.tokens is None else TokenStore.open(self.tokens, store)

    def order(self, store: Store) -> GlobalOrder:
        """The global order of the training windows. Raises UserError where there are none or the mixture is wrong."""
        index = self.windows(store, "train")
        return GlobalOrder(index, batch_size=self.batch_size, seed=self.seed, mixture=self.mixture)

    def windows(self, store: Store, split: str) -> WindowIndex:
        """The windows of a split that the run reads. Raises UserError where there are none."""
        index = self.chosen(windows_of(store, split, self.data_sets), split)
        if not len(index):
            told = ", ".join(f"{label} of {name}" for name, label in self.left_out)
            raise UserError(f"{store.path}: all {split} windows are left out by label_map ({told}); map a label")
        return index

    def chosen(self, index: WindowIndex, split: str) -> WindowIndex:
        """What is left of a split's windows without those that nobody asks about; in training the mixture's part."""
        index = self._asked(index)
        if split != "train" or self.mixture is None:
            return index
        return part_of(index, self.mixture.fraction, self.seed)

    @property
    def reads_all_alike(self) -> bool:
        """Whether every window comes once in a training epoch."""
        is_whole = self.mixture is None or (self.mixture.is_proportional and self.mixture.fraction == 1)
        return is_whole and not self.left_out

    def readings(self, store: Store) -> dict[str, Readings]:
        """How often the whole run reads the training windows of every data set.

        A data set goes through all its windows before one comes again, so they differ by one at most.
        """
        everything = windows_of(store, "train", self.data_sets)
        asked = self._asked(everything)
        sizes = data_set_sizes(self.chosen(everything, "train"))
        mixture = self.mixture or MixtureConfig()
        counts = sizes if mixture.is_proportional else mixture.counts(sizes)
        steps_per_epoch = -(-sum(sizes.values()) // self.batch_size) or 1
        epochs = self.num_steps(steps_per_epoch) / steps_per_epoch
        found = {}
        for name, number in data_set_sizes(everything).items():
            size, labelled = sizes.get(name, 0), data_set_sizes(asked).get(name, 0)
            found[name] = Readings(size, round(epochs * counts.get(name, 0)), number - labelled, labelled - size)
        return found

    def _asked(self, index: WindowIndex) -> WindowIndex:
        if not self.left_out:
            return index
        pairs = zip(index.data_set, index.label, strict=True)
        return index.take(np.array([pair not in self.left_out for pair in pairs], dtype=bool))

    def total_steps(self, order: GlobalOrder) -> int:
        """Steps of the whole run."""
        return self.num_steps(order.steps_per_epoch)

    def num_steps(self, steps_per_epoch: int) -> int:
        """Steps of a whole run whose training epochs have so many."""
        steps = max(self.epochs * steps_per_epoch, self.min_steps)
        return steps if self.max_steps is None else min(steps, self.max_steps)


def windows_of(store: Store, split: str, data_sets: Sequence[str] | None) -> WindowIndex:
    """The windows of a split. Raises UserError where there are none."""
    index = store.index(split, data_sets)
    if not len(index):
        wanted = f" of {', '.join(data_sets)}" if data_sets else ""
        raise UserError(f"{store.path}: no {split} windows{wanted}; preprocess those recordings or change data.split")
    return index


def step_share(
    order: GlobalOrder, step: int, rank: int, world_size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and places in the global batch of a worker's share of ``step``."""
    rows = order.batch(step)
    return worker_slice(rows, rank, world_size), worker_slice(np.arange(len(rows)), rank, world_size)


def read_steps(
    source: WindowSource, order: GlobalOrder, steps: Iterable[int], rank: int = 0, world_size: int = 1
) -> Iterator[StepWindows]:
    """Read a worker's windows by index, step after step."""
    source.keep_row_groups(order.row_groups_at_once(world_size))
    for step in steps:
        rows, places = step_share(order, step, rank, world_size)
        yield StepWindows(step, source.read(rows), places)
