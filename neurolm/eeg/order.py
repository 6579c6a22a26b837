"""The global order of windows: which windows make up which batch, whoever reads them.

The order is a function of (row groups of the index, seed, training epoch). Row groups are permuted and dealt to a
fixed number of lanes; a lane reads its row groups one after another, their windows shuffled. All lanes advance at the
same relative speed, so every batch mixes all lanes, and no more than about one row group per lane is in use at a time.
Within a batch, windows are sorted by lane: a worker's slice touches few row groups. The number of workers enters only
in `worker_slice`, so runs on any number of workers, and resumed ones, see the same batches.
"""

import numpy as np
from numpy.typing import NDArray

from neurolm.eeg.shards import WindowIndex


class GlobalOrder:
    """Row numbers of every global batch of a run; each window occurs exactly once in each training epoch.

    Args:
        index: the windows of one split.
        batch_size: windows in a global batch; the last batch of a training epoch holds what is left.
        seed: another seed is another order.
        lanes: how many row groups are mixed at any time.
    """

    def __init__(self, index: WindowIndex, *, batch_size: int, seed: int, lanes: int = 64) -> None:
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

    def _epoch_order(self, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng([self._seed, epoch])
        num_groups = int(self._groups.max()) + 1
        turn = rng.permutation(num_groups)[self._groups]  # when the window's row group is dealt
        order = np.lexsort((rng.random(len(self._rows)), turn))  # shuffled within the row group
        lane = turn[order] % self._lanes
        by_lane = np.argsort(lane, kind="stable")
        order, lane = order[by_lane], lane[by_lane]
        lengths = np.bincount(lane)
        starts = np.cumsum(lengths) - lengths
        within = np.arange(len(order)) - starts[lane]
        progress = (within + rng.random(len(lengths))[lane]) / lengths[lane]  # every lane ends with the epoch
        mixed = np.argsort(progress, kind="stable")
        batch = np.arange(len(order)) // self.batch_size
        return np.asarray(self._rows[order[mixed][np.lexsort((lane[mixed], batch))]])


def worker_slice(rows: NDArray[np.int64], rank: int, world_size: int) -> NDArray[np.int64]:
    """The ``rank``-th of ``world_size`` contiguous, nearly equal slices; together they are the batch, in order."""
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} is not one of {world_size} workers")
    return rows[rank * len(rows) // world_size : (rank + 1) * len(rows) // world_size]
