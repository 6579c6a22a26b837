"""How channels vary together: the logarithm of every second's covariance matrix, by frequency band.

A patch knows nothing of the phases of the others, so neither the temporal convolution nor a spectrum of patches tells
how channels are coupled; covariance matrices do. Their matrix logarithms lie in a flat space whose distances do not
depend on the unit of the signals (log-Euclidean metric: Arsigny et al., 2006; for EEG: Barachant et al., 2012). With
logistic regression, on 26 subjects of eegmat and in folds over them, rows of these matrices, averaged over the seconds
of a window, have a balanced accuracy of 0.76 where log band power has 0.70.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

BANDS_HZ = ((1, 3), (3, 5), (5, 8), (8, 10), (10, 13), (13, 20), (20, 30), (30, 45))
"""The lower end belongs to a band; frequencies of a second are 1 Hz apart."""
NUM_BANDS = len(BANDS_HZ)
SHRINKAGE = 0.005
"""How much of a matrix is its mean variance instead: a band has fewer frequencies than a montage has channels."""
SMALLEST = 1e-10
"""(100 microvolt)^2: keeps silence finite."""
EPSILON = 1e-6


class LogCovariance(NamedTuple):
    """Logarithms of covariance matrices, a row for each token."""

    variance: Float[Tensor, "batch tokens bands"]
    """The diagonals, less their mean over the window: what depends on the unit alone."""
    coupling: Float[Tensor, "batch tokens bands channels"]
    """The rest of the row of the token's channel, with 0 for the channel itself."""


@torch.no_grad()
def log_covariance(signal: Float[Tensor, "batch tokens points"], num_channels: int) -> LogCovariance:
    """Log-covariance of windows of patches of one second, time-major: all channels of a second, then of the next."""
    if not signal.numel():  # no transform exists of nothing
        variance = signal.new_zeros(*signal.shape[:-1], NUM_BANDS, dtype=torch.float32)
        return LogCovariance(variance, variance[..., None].expand(*variance.shape, num_channels))
    with torch.autocast(signal.device.type, enabled=False):
        spectrum = torch.fft.rfft(signal.float().unflatten(1, (-1, num_channels))) / signal.shape[-1]
        parts = [torch.view_as_real(spectrum[..., low:high]).flatten(-2) for low, high in BANDS_HZ]
        logarithm = torch.stack([_log_of_products(part) for part in parts], dim=3)  # batch seconds rows bands channels
        variance = torch.diagonal(logarithm, dim1=2, dim2=4).transpose(2, 3).flatten(1, 2)
        coupling = logarithm * (1 - torch.eye(num_channels, device=signal.device))[:, None]
        return LogCovariance(variance - variance.mean((1, 2), keepdim=True), coupling.flatten(1, 2))


def _log_of_products(rows: Float[Tensor, "*any channels values"]) -> Float[Tensor, "*any channels channels"]:
    """Logarithm of the shrunk ``rows @ rows.mT``.

    But for the multiple of the identity that shrinkage adds, its rank is the number of values at most; so eigenvalues
    are sought of the smaller of the two products, which has the same.
    """
    num_channels, num_values = rows.shape[-2:]
    floor = SHRINKAGE * (rows.square().sum((-2, -1), keepdim=True) / num_channels + SMALLEST)
    eye = torch.eye(num_channels, device=rows.device)
    values, vectors = torch.linalg.eigh(rows.mT @ rows if num_values < num_channels else rows @ rows.mT)
    values = values.clamp(min=0)[..., None, :]
    above = torch.log1p((1 - SHRINKAGE) * values / floor)
    if num_values < num_channels:
        vectors = rows @ vectors  # as long as the roots of their values
        above = torch.where(values > values[..., -1:] * EPSILON, above / values, (1 - SHRINKAGE) / floor)
    return (vectors * above) @ vectors.mT + floor.log() * eye


def covariance_target(rows: LogCovariance) -> Float[Tensor, "batch tokens outputs"]:
    """What a decoder reconstructs of each token's row: by band its variance, then its coupling with each channel.

    Both have deviation 1 over the window.
    """
    parts = [part.flatten(2) for part in rows]
    return torch.cat([F.layer_norm(part, part.shape[1:], eps=EPSILON) for part in parts], dim=-1)
