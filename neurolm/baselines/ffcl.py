"""FFCL (Li et al. 2022, *Motor imagery EEG classification algorithm based on CNN-LSTM feature fusion network*).

- a CNN and an LSTM read the same window side by side; one linear layer reads both their vectors;
- the CNN is the residual encoder of the spectrogram;
- for the LSTM the signal is folded: every 20th time point of a channel, from each of the first 20 on, is one step, the
  20 folds one after another and within each the channels in order; two layers of 256, dropout 0.5 between them.

Sizes and the folding are those of the BIOT comparison that the NeuroLM paper takes over: 2.4 M parameters for 16
channels and 10 s.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neurolm.baselines.spectrogram import FEATURES, SpectrogramEncoder

NUM_FOLDS = 20
WIDTH = FEATURES[-1]
NUM_LAYERS = 2
DROPOUT = 0.5


class FFCL(nn.Module):
    """Features of a CNN and of an LSTM, fused.

    Args:
        num_channels: of a window.
        num_times: of a window, a multiple of 20.
        num_classes: of the task.
    """

    def __init__(self, num_channels: int, num_times: int, num_classes: int) -> None:
        super().__init__()
        self.encoder = SpectrogramEncoder(num_channels)
        self.lstm = nn.LSTM(num_times // NUM_FOLDS, WIDTH, NUM_LAYERS, batch_first=True, dropout=DROPOUT)
        self.classifier = nn.Sequential(nn.ELU(), nn.Linear(2 * WIDTH, num_classes))

    def forward(self, signal: Float[Tensor, "windows channels times"]) -> Float[Tensor, "windows classes"]:
        """Logits."""
        states, _ = self.lstm(folded(signal))
        logits: Tensor = self.classifier(torch.cat([self.encoder(signal), states[:, -1]], dim=1))
        return logits


def folded(signal: Float[Tensor, "windows channels times"]) -> Float[Tensor, "windows steps points"]:
    """Step ``fold * channels + channel`` holds the channel's points ``fold, fold + 20, fold + 40, ...``."""
    by_fold = signal.unflatten(2, (-1, NUM_FOLDS))  # windows channels points folds
    return by_fold.permute(0, 3, 1, 2).flatten(1, 2)
