"""CNN-Transformer (Peh et al. 2022, *Transformer convolutional neural networks for automated artifact detection*).

- the window is cut into five segments, fewer where a segment would be shorter than a second;
- each becomes a vector by the same convolutions over its spectrogram;
- four transformer layers of width 256 (4 heads, MLP of 256, GELU, dropout 0.2) read them in order;
- their mean, ELU and a linear layer say the class.

Sizes are those of the BIOT comparison that the NeuroLM paper takes over: 3.2 M parameters for 16 channels.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neurolm.baselines.spectrogram import FEATURES, FRAME_POINTS, SpectrogramEncoder

WIDTH = FEATURES[-1]
MOST_SEGMENTS = 5
NUM_LAYERS = 4
NUM_HEADS = 4
DROPOUT, POSITION_DROPOUT = 0.2, 0.1


class CNNTransformer(nn.Module):
    """Convolutions within segments, attention across them.

    Args:
        num_channels: of a window.
        num_times: of a window, whole seconds at 200 Hz.
        num_classes: of the task.
    """

    positions: Tensor

    def __init__(self, num_channels: int, num_times: int, num_classes: int) -> None:
        super().__init__()
        self.num_segments = max(1, min(MOST_SEGMENTS, num_times // FRAME_POINTS))
        self.encoder = SpectrogramEncoder(num_channels)
        self.register_buffer("positions", sinusoids(self.num_segments, WIDTH), persistent=False)
        self.position_dropout = nn.Dropout(POSITION_DROPOUT)
        layer = nn.TransformerEncoderLayer(
            WIDTH, NUM_HEADS, dim_feedforward=WIDTH, dropout=DROPOUT, activation="gelu", batch_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, NUM_LAYERS, enable_nested_tensor=False)
        self.classifier = nn.Sequential(nn.ELU(), nn.Linear(WIDTH, num_classes))

    def forward(self, signal: Float[Tensor, "windows channels times"]) -> Float[Tensor, "windows classes"]:
        """Logits; time points that do not fill a segment are left out at the end."""
        points = signal.shape[2] // self.num_segments
        segments = signal[:, :, : self.num_segments * points].unflatten(2, (self.num_segments, points))
        vectors = self.encoder(segments.transpose(1, 2).flatten(0, 1)).unflatten(0, (-1, self.num_segments))
        mixed = self.transformer(self.position_dropout(vectors + self.positions)).mean(dim=1)
        logits: Tensor = self.classifier(mixed)
        return logits


def sinusoids(num_positions: int, width: int) -> Float[Tensor, "positions width"]:
    """The position code of Vaswani et al. 2017: sine and cosine in turn, wavelengths from 2 pi to 20,000 pi."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angles = torch.arange(num_positions)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
