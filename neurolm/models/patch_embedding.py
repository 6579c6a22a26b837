"""From patches of one second to vectors: the temporal convolution of the neural tokenizer.

- three convolutions over the 200 points of a patch (the first with stride 8), 16 features each, none across patches;
- each followed by a group norm of 4 groups and GELU, in this order; then a linear layer to the width, and GELU;
- as released, the group norm's statistics are taken over *all* patches of a window, so a patch's vector depends on
  the whole window. ``norm="token"`` takes them within each patch.

The released code also counted its zero padding in these statistics (to 1024 tokens in training the tokenizer and
pre-training, to 276 in instruction tuning); the paper says nothing of it. All padding tokens of a window are alike, so
``pad_to`` reproduces it with a single zero token that stands for all of them.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

POINTS = 200
"""Time points in a patch: one second at 200 Hz."""
NUM_FEATURES = 16
NUM_GROUPS = 4
NUM_STEPS = 25
"""Steps left of a patch's 200 points after the first convolution."""


class PatchEmbedding(nn.Module):
    """The temporal convolution."""

    def __init__(self, hidden_size: int, norm: Literal["window", "token"] = "window") -> None:
        super().__init__()
        self.norm = norm
        self.convolutions = nn.ModuleList(
            [
                nn.Conv2d(1, NUM_FEATURES, (1, 15), stride=(1, 8), padding=(0, 7)),
                nn.Conv2d(NUM_FEATURES, NUM_FEATURES, (1, 3), padding=(0, 1)),
                nn.Conv2d(NUM_FEATURES, NUM_FEATURES, (1, 3), padding=(0, 1)),
            ]
        )
        self.norms = nn.ModuleList(nn.GroupNorm(NUM_GROUPS, NUM_FEATURES, eps=1e-5) for _ in self.convolutions)
        self.linear = nn.Linear(NUM_STEPS * NUM_FEATURES, hidden_size)

    def forward(
        self, signal: Float[Tensor, "batch tokens points"], weights: Float[Tensor, " tokens"] | None = None
    ) -> Float[Tensor, "batch tokens hidden"]:
        """Embed each patch. ``weights``: how many tokens each token counts as in the statistics (default: one)."""
        x = signal.unsqueeze(1)  # batch features tokens points
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.gelu(self._normalise(convolution(x), norm, weights))
        return F.gelu(self.linear(x.permute(0, 2, 3, 1).flatten(-2)))

    def _normalise(self, x: Tensor, norm: nn.Module, weights: Tensor | None) -> Tensor:
        assert isinstance(norm, nn.GroupNorm)
        if self.norm == "token":
            batch = x.shape[0]
            by_token = norm(x.transpose(1, 2).flatten(0, 1))
            return by_token.unflatten(0, (batch, -1)).transpose(1, 2)
        return norm(x) if weights is None else weighted_group_norm(x, norm, weights)


def weighted_group_norm(
    x: Float[Tensor, "batch features tokens steps"], norm: nn.GroupNorm, weights: Float[Tensor, " tokens"]
) -> Float[Tensor, "batch features tokens steps"]:
    """Group norm whose statistics count token i ``weights[i]`` times, as if it stood there that often."""
    groups = x.unflatten(1, (norm.num_groups, -1))  # batch groups features tokens steps
    weight = (weights / (weights.sum() * groups.shape[2] * groups.shape[4]))[:, None]
    mean = (groups * weight).sum((2, 3, 4), keepdim=True)
    variance = ((groups - mean).square() * weight).sum((2, 3, 4), keepdim=True)
    normalised = ((groups - mean) * torch.rsqrt(variance + norm.eps)).flatten(1, 2)
    return normalised * norm.weight[:, None, None] + norm.bias[:, None, None]
