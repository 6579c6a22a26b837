"""The convolutional encoder of a spectrogram that CNN-Transformer and FFCL share.

- magnitudes of Fourier transforms of one second, one every 50 ms, rectangular window, normalised by its length;
- four residual blocks of 32, 64, 128 and 256 features, each of which halves both axes twice.

Sizes are those of the comparison that the NeuroLM paper takes over (Yang et al. 2023, *BIOT*, and its published code).
"""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

FRAME_POINTS = 200
"""Time points of a frame: one second at 200 Hz."""
HOP_POINTS = 10
"""From one frame to the next."""
FEATURES = (32, 64, 128, 256)
"""Of the four blocks."""
DROPOUT = 0.5


class Spectrogram(nn.Module):
    """Magnitudes ``[windows channels 101 frames]``; frames at both ends reach over a mirrored signal."""

    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.ones(FRAME_POINTS), persistent=False)

    def forward(
        self, signal: Float[Tensor, "windows channels times"]
    ) -> Float[Tensor, "windows channels frequencies frames"]:
        """The signal has more than half a second."""
        complex_spectrum = torch.stft(
            signal.flatten(0, 1),
            n_fft=FRAME_POINTS,
            hop_length=HOP_POINTS,
            window=self.window,
            normalized=True,
            return_complex=True,
        )
        return complex_spectrum.abs().unflatten(0, signal.shape[:2])


class ResidualBlock(nn.Module):
    """Two convolutions beside one, all 3 x 3; the first of each side strides by two, and so does the pool behind."""

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(num_inputs, num_outputs, 3, stride=2, padding=1),
            nn.BatchNorm2d(num_outputs),
            nn.ReLU(),
            nn.Conv2d(num_outputs, num_outputs, 3, padding=1),
            nn.BatchNorm2d(num_outputs),
        )
        self.side = nn.Sequential(
            nn.Conv2d(num_inputs, num_outputs, 3, stride=2, padding=1), nn.BatchNorm2d(num_outputs)
        )
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(
        self, maps: Float[Tensor, "windows inputs height width"]
    ) -> Float[Tensor, "windows outputs less_height less_width"]:
        """Both axes are divided by four, rounded up."""
        pooled: Tensor = self.dropout(self.pool(self.main(maps) + self.side(maps)))
        return pooled


class SpectrogramEncoder(nn.Module):
    """A signal to one vector of 256 numbers: spectrogram, four blocks, mean over what is left of both axes.

    The published code takes windows so short that one place is left; the mean is that place then.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        widths = (num_channels, *FEATURES)
        self.spectrogram = Spectrogram()
        self.blocks = nn.Sequential(*(ResidualBlock(a, b) for a, b in pairwise(widths)))

    def forward(self, signal: Float[Tensor, "windows channels times"]) -> Float[Tensor, "windows features"]:
        """The vector of each window."""
        maps: Tensor = self.blocks(self.spectrogram(signal))
        return maps.mean(dim=(2, 3))
