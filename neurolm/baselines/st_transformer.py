"""ST-Transformer (Song et al. 2021, *Transformer-based spatial-temporal feature learning for EEG decoding*).

- spatial: attention between channels, whose queries and keys are averaged over half seconds, added to the signal;
- two convolutions of 15 points with stride 8 over all channels make tokens of 256 numbers;
- temporal: four pre-norm transformer layers (8 heads, MLP of 1024, GELU, dropout 0.5) over the tokens, no positions;
- their mean, ELU and a linear layer say the class.

Sizes are those of the BIOT comparison that the NeuroLM paper takes over: 3.5 M parameters. Its published code adds up
the attention weights of each channel, which is 1 whatever they are; here they weigh the channels, as the paper says.
The paper's filter in front (common spatial patterns, fitted per pair of classes) is no part of that code nor of this.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

WIDTH = 256
NUM_LAYERS = 4
NUM_HEADS = 8
FIRST_FEATURES = 64
KERNEL, STRIDE = 15, 8
POOL_POINTS = 100
"""Half a second at 200 Hz."""
DROPOUT, CHANNEL_DROPOUT = 0.5, 0.3


class ChannelAttention(nn.Module):
    """Every channel becomes a weighted sum of all, by how alike their courses are.

    Args:
        num_channels: of a window.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.query, self.key, self.projection = (_across_channels(num_channels) for _ in range(3))

    def forward(self, signal: Float[Tensor, "windows channels times"]) -> Float[Tensor, "windows channels times"]:
        """The weighted sums, projected."""
        weights = self.weights(signal)
        mixed: Tensor = self.projection((weights @ signal).transpose(1, 2)).transpose(1, 2)
        return mixed

    def weights(self, signal: Float[Tensor, "windows channels times"]) -> Float[Tensor, "windows channels channels"]:
        """How much each channel (row) takes of each (column); rows add up to 1."""
        by_time = signal.transpose(1, 2)
        query, key = (F.avg_pool1d(part(by_time).transpose(1, 2), POOL_POINTS) for part in (self.query, self.key))
        return (query @ key.transpose(1, 2) / query.shape[2] ** 0.5).softmax(dim=-1)


class STTransformer(nn.Module):
    """Attention across channels, then across time.

    Args:
        num_channels: of a window.
        num_times: of a window, whole seconds at 200 Hz.
        num_classes: of the task.
    """

    def __init__(self, num_channels: int, num_times: int, num_classes: int) -> None:
        super().__init__()
        self.spatial = nn.Sequential(nn.LayerNorm(num_times), ChannelAttention(num_channels), nn.Dropout(DROPOUT))
        self.tokens = nn.Sequential(
            nn.Conv1d(num_channels, FIRST_FEATURES, KERNEL, stride=STRIDE),
            nn.BatchNorm1d(FIRST_FEATURES),
            nn.LeakyReLU(0.2),
            nn.Conv1d(FIRST_FEATURES, WIDTH, KERNEL, stride=STRIDE),
        )
        layer = nn.TransformerEncoderLayer(
            WIDTH,
            NUM_HEADS,
            dim_feedforward=4 * WIDTH,
            dropout=DROPOUT,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.temporal = nn.TransformerEncoder(layer, NUM_LAYERS, enable_nested_tensor=False)
        self.classifier = nn.Sequential(nn.ELU(), nn.Linear(WIDTH, num_classes))

    def forward(self, signal: Float[Tensor, "windows channels times"]) -> Float[Tensor, "windows classes"]:
        """Logits."""
        tokens = self.tokens(signal + self.spatial(signal)).transpose(1, 2)
        logits: Tensor = self.classifier(self.temporal(tokens).mean(dim=1))
        return logits


def _across_channels(num_channels: int) -> nn.Sequential:
    """A linear layer over the channels of one time point, normalised."""
    linear = nn.Linear(num_channels, num_channels)
    nn.init.xavier_normal_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(linear, nn.LayerNorm(num_channels), nn.Dropout(CHANNEL_DROPOUT))
