"""Which validation windows stand for all of them while a run is not at its end."""

import numpy as np

from neurolm.eeg.shards import WindowIndex


def validation_sample(index: WindowIndex, size: int, seed: int) -> WindowIndex:
    """About ``size`` windows: of each class of each data set its share, at least one; the same for the same seed."""
    if size >= len(index):
        return index
    kinds = [f"{data_set}/{label}" for data_set, label in zip(index.data_set, index.label, strict=True)]
    _, kind = np.unique(kinds, return_inverse=True)
    shuffled = np.random.default_rng(seed).permutation(len(index))
    by_kind = shuffled[np.argsort(kind[shuffled], kind="stable")]
    spread = by_kind[((np.arange(size) + 0.5) * len(index) / size).astype(int)]
    kinds_left, first = np.unique(kind[by_kind], return_index=True)
    missed = first[~np.isin(kinds_left, kind[spread])]
    return index.take(np.sort(np.concatenate([spread, by_kind[missed]])))
