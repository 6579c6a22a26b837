"""Log-covariance: how channels vary together in each band, the features of Riemannian classifiers of EEG.

What `neurolm.models.covariance` gives of each second, averaged over a window's seconds. A neural tokenizer with
``patch_input: covariance`` reads the same, so that its NeuroLM can be compared with a straight line through its input.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from neurolm.models.covariance import log_covariance
from neurolm.sequences import patches


def mean_log_covariance(signals: NDArray[np.float32]) -> NDArray[np.float64]:
    """``[windows, bands x channels x (channels + 1) / 2]``; signals ``[windows, channels, times]`` in µV at 200 Hz."""
    num_channels = signals.shape[1]
    rows = log_covariance(torch.from_numpy(patches(signals)), num_channels)
    variance, coupling = (part.unflatten(1, (-1, num_channels)).double().mean(1).numpy() for part in rows)
    above = np.triu_indices(num_channels, 1)
    pairs = coupling.transpose(0, 2, 1, 3)[:, :, above[0], above[1]]  # windows bands pairs, each once
    return np.concatenate([variance.reshape(len(signals), -1), pairs.reshape(len(signals), -1)], axis=1)
