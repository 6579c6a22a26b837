"""From patches to vectors by the log-covariance of their second, in place of the temporal convolution.

A token is told its channel's row: how strong every band is, and how it goes with every other channel. Weights belong
to channels by name, so that any montage can be read.
"""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from neurolm.models.covariance import NUM_BANDS, LogCovariance
from neurolm.models.place_embedding import NUM_CHANNEL_ROWS


class CovarianceEmbedding(nn.Module):
    """Rows of log-covariance matrices to vectors, by two layers with GELU."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.variance = nn.Linear(NUM_BANDS, hidden_size)
        self.coupling = nn.Embedding(NUM_CHANNEL_ROWS, NUM_BANDS * hidden_size)
        """By channel, what coupling with it means in every band."""
        nn.init.normal_(self.coupling.weight, std=NUM_BANDS**-0.5)
        self.linear = nn.Linear(hidden_size, hidden_size)

    def forward(
        self, rows: LogCovariance, channels: Int[Tensor, "... channels"]
    ) -> Float[Tensor, "batch tokens hidden"]:
        """Embed each token's row; ``channels`` are those of one second, the same in every second of a window."""
        weights = self.coupling(channels).unflatten(-1, (NUM_BANDS, -1)).transpose(-3, -2).flatten(-3, -2)
        # Scaled by the number of channels, so that montages of few and of many start alike (16 channels: 1).
        coupled = rows.coupling.flatten(2) @ weights * (4 / channels.shape[-1] ** 0.5)
        embedded: Tensor = self.linear(F.gelu(self.variance(rows.variance) + coupled))
        return embedded
