"""From µV to the units in which a network was published; each is the first module of what is trained."""

from jaxtyping import Float
from torch import Tensor, nn

from neurolm.sequences import MICROVOLT_SCALE

QUANTILE = 0.95
SMALLEST = 1e-3
"""µV that a flat channel is divided by, so that nothing is divided by 0."""


class PercentileScale(nn.Module):
    """Every channel of every window by the 95th percentile of its absolute values (BIOT's comparison)."""

    def forward(self, signal: Float[Tensor, "windows channels times"]) -> Float[Tensor, "windows channels times"]:
        """A signal without a unit, mostly between -1 and 1."""
        return signal / signal.abs().quantile(QUANTILE, dim=2, keepdim=True).clamp(min=SMALLEST)


class MicrovoltScale(nn.Module):
    """Units of 100 µV (LaBraM, NeuroLM)."""

    def forward(self, signal: Float[Tensor, "windows channels times"]) -> Float[Tensor, "windows channels times"]:
        """In 100 µV."""
        return signal / MICROVOLT_SCALE


class DeviationScale(nn.Module):
    """Every channel by its deviation over the training windows.

    Windows keep what tells them apart in amplitude (EEG-Conformer's standardisation; high-passed as they are, their
    mean is about 0).

    Args:
        deviation: of each channel over training windows, in µV.
    """

    deviation: Tensor

    def __init__(self, deviation: Float[Tensor, " channels"]) -> None:
        super().__init__()
        self.register_buffer("deviation", deviation.clamp(min=SMALLEST)[:, None])

    def forward(self, signal: Float[Tensor, "windows channels times"]) -> Float[Tensor, "windows channels times"]:
        """In deviations."""
        return signal / self.deviation
