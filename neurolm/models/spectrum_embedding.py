"""From patches of one second to vectors by their spectrum, in place of the temporal convolution.

The log amplitudes of a patch's frequencies, standardised over the window, go through two linear layers with GELU, which
is less work. What differs between windows only in amplitude is lost, as with the convolution's group norms.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from neurolm.models.losses import LOG_FLOOR, NUM_BINS

SMALLEST = 1e-6
"""In the unit of the signal, 100 microvolt: keeps a flat window finite; it has no spectrum, and becomes zeros."""


class SpectrumEmbedding(nn.Module):
    """Log amplitudes from 0 to 99 Hz to vectors."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(NUM_BINS, hidden_size), nn.GELU(), nn.Linear(hidden_size, hidden_size))

    def forward(
        self, signal: Float[Tensor, "batch tokens points"], weights: None = None
    ) -> Float[Tensor, "batch tokens hidden"]:
        """Embed each patch; there are no statistics in which padding could count, so ``weights`` are None."""
        embedded: Tensor = self.layers(log_spectrum(signal))
        return embedded


def log_spectrum(signal: Float[Tensor, "batch tokens points"]) -> Float[Tensor, "batch tokens bins"]:
    """Log amplitudes of the bins 0 to 99 Hz, with mean 0 and deviation 1 over each window."""
    if not signal.numel():  # neither deviations nor transforms exist of nothing
        return signal.new_zeros(*signal.shape[:-1], NUM_BINS)
    amplitude = torch.fft.rfft(signal.float()).abs()[..., :NUM_BINS]
    logarithm = torch.log(amplitude + LOG_FLOOR * amplitude.mean((-2, -1), keepdim=True) + SMALLEST)
    return F.layer_norm(logarithm, logarithm.shape[-2:])
