"""The global order of windows: which windows make up which batch, whoever reads them.

The order is a function of (row groups of the index, seed, training epoch). Row groups are permuted and dealt to a
fixed number of lanes; a lane reads its row groups one after another, their windows shuffled. All lanes advance at the
same relative speed, so every batch mixes all lanes, and no more than about one row group per lane is in use at a time.
Within a batch, windows are sorted by lane: a worker's slice touches few row groups. The number of workers enters only
in `worker_slice`, so runs on any number of workers, and resumed ones, see the same batches.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurolm.eeg.mixture import MixtureConfig, data_set_sizes
from neurolm.eeg.shards import WindowIndex


class GlobalOrder:
    """Row numbers of every global batch of a run; without a mixture each window occurs once in each training epoch.

    Args:
        index: the windows of one split.
        batch_size: windows in a global batch; the last batch of a training epoch holds what is left.
        seed: another seed is another order.
        lanes: how many row groups are mixed at any time.
        mixture: how often each data set is seen. A training epoch always has as many windows as the index; each data
            set gives its share of them and goes through all its own windows before any comes again.

    Raises:
        ConfigError: the mixture does not fit the data sets of the index.
    """

    def __init__(
        self, index: WindowIndex, *, batch_size: int, seed: int, lanes: int = 64, mixture: MixtureConfig | None = None
    ) -> None:
        if len(index) == 0:
            raise ValueError("there is no window to put in order")
        if batch_size < 1 or lanes < 1:
            raise ValueError(f"batch size {batch_size} and lanes {lanes} must be at least 1")
        self.batch_size = batch_size
        self.steps_per_epoch = -(-len(index) // batch_size)
        self._rows = np.asarray(index.rows, dtype=np.int64)
        self._groups: NDArray[np.int64] = np.unique(index.row_groups, return_inverse=True)[1].astype(np.int64)
        self._seed = seed
        self._lanes = lanes
        is_mixed = mixture is not None and not mixture.is_proportional
        self._sets = _data_sets(index, self._groups, mixture, lanes) if mixture is not None and is_mixed else None
        self._epoch = -1
        self._order = self._rows[:0]

    def batch(self, step: int) -> NDArray[np.int64]:
        """Rows of global batch ``step``, counted from 0 over the whole run.

        Any step can come first. The order of a training epoch is computed once and kept for the next step.
        """
        if step < 0:
            raise ValueError(f"step {step} is before the first")
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._order, self._epoch = self._epoch_order(epoch), epoch
        return self._order[place * self.batch_size : (place + 1) * self.batch_size]

    def row_groups_at_once(self, world_size: int = 1) -> int:
        """Row groups from which one of so many workers reads at any time: those of its lanes, some of them changing."""
        return -(-self._lanes // world_size) + 4

    def _epoch_order(self, epoch: int) -> NDArray[np.int64]:
        rows, lane = self._whole_epoch(epoch) if self._sets is None else self._mixed_epoch(self._sets, epoch)
        batch = np.arange(len(rows)) // self.batch_size
        return np.asarray(rows[np.lexsort((lane, batch))])

    def _whole_epoch(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All windows once: their rows and lanes, in order."""
        order, lane = _through_lanes(self._groups, np.random.default_rng([self._seed, epoch]), self._lanes)
        return self._rows[order], lane

    def _mixed_epoch(self, sets: "list[_DataSet]", epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Each data set goes on where it was, and begins anew when all its windows have been seen."""
        rows, lanes, progress = [], [], []
        for number, data_set in enumerate(sets):
            chosen, lane = data_set.stretch(epoch * data_set.count, (epoch + 1) * data_set.count, [self._seed, number])
            rows.append(self._rows[chosen])
            lanes.append(lane + sum(other.lanes for other in sets[:number]))
            phase = np.random.default_rng([self._seed, number, epoch, 1]).random()
            progress.append((np.arange(data_set.count) + phase) / data_set.count)
        mixed = np.argsort(np.concatenate(progress), kind="stable")
        return np.concatenate(rows)[mixed], np.concatenate(lanes)[mixed]


@dataclass(frozen=True)
class _DataSet:
    """A data set of a mixture."""

    members: NDArray[np.int64]
    """Places of its windows in the index."""
    groups: NDArray[np.int64]
    """Their row groups, counted from 0."""
    count: int
    """How many are seen in a training epoch."""
    lanes: int

    def stretch(self, start: int, stop: int, seed: list[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places in the index and lanes of its windows from the ``start``-th to before the ``stop``-th of the run."""
        size = len(self.members)
        places, lanes = [], []
        for own_epoch in range(start // size, -(-stop // size)):
            order, lane = _through_lanes(self.groups, np.random.default_rng([*seed, own_epoch, 0]), self.lanes)
            first = own_epoch * size
            taken = slice(max(start - first, 0), min(stop - first, size))
            places.append(self.members[order[taken]])
            lanes.append(lane[taken])
        return np.concatenate(places), np.concatenate(lanes)


def _data_sets(index: WindowIndex, groups: NDArray[np.int64], mixture: MixtureConfig, lanes: int) -> list[_DataSet]:
    names, numbers = np.unique(index.data_set.astype(str), return_inverse=True)
    counts = mixture.counts(data_set_sizes(index))
    sets = []
    for number, name in enumerate(names.tolist()):
        members = np.flatnonzero(numbers == number)
        own = np.unique(groups[members], return_inverse=True)[1].astype(np.int64)
        sets.append(_DataSet(members, own, counts[name], max(1, round(lanes * counts[name] / len(index)))))
    return sets


def _through_lanes(
    groups: NDArray[np.int64], rng: np.random.Generator, num_lanes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every place once, shuffled within row groups that are dealt to lanes, and its lane."""
    turn = rng.permutation(int(groups.max()) + 1)[groups]  # when the window's row group is dealt
    order = np.lexsort((rng.random(len(groups)), turn))  # shuffled within the row group
    lane = turn[order] % num_lanes
    by_lane = np.argsort(lane, kind="stable")
    order, lane = order[by_lane], lane[by_lane]
    lengths = np.bincount(lane)
    starts = np.cumsum(lengths) - lengths
    within = np.arange(len(order)) - starts[lane]
    progress = (within + rng.random(len(lengths))[lane]) / lengths[lane]  # every lane ends with the epoch
    mixed = np.argsort(progress, kind="stable")
    return order[mixed], lane[mixed]


def worker_slice(rows: NDArray[np.int64], rank: int, world_size: int) -> NDArray[np.int64]:
    """The ``rank``-th of ``world_size`` contiguous, nearly equal slices; together they are the batch, in order."""
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} is not one of {world_size} workers")
    return rows[rank * len(rows) // world_size : (rank + 1) * len(rows) // world_size]
