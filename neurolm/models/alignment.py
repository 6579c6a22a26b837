"""Text alignment of the neural tokenizer: a classifier that tells EEG from text, and the encoder that deceives it."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from neurolm.models.transformer import initialise_linear

EEG_DOMAIN, TEXT_DOMAIN = 0, 1
CLASSIFIER_SIZE = 256


class _GradientReversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: float | Tensor) -> Tensor:
        ctx.alpha = alpha
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.alpha * gradients[0], None


def gradient_reversal(x: Float[Tensor, "*shape"], alpha: float | Tensor) -> Float[Tensor, "*shape"]:
    """The identity, whose gradient is multiplied by ``-alpha``: what lies before it learns to fool what lies behind.

    The paper weights the classifier's loss; the released code, which we follow, only scales the reversed gradient, so
    the classifier itself always learns at full weight.
    """
    reversed_: Tensor = _GradientReversal.apply(x, alpha)
    return reversed_


def reversal_strength(step: int, total_steps: int) -> float:
    """The schedule of ``alpha`` from 0 to nearly 1: 2 / (1 + exp(-10 step / total_steps)) - 1."""
    return 2 / (1 + math.exp(-10 * step / total_steps)) - 1


class DomainClassifier(nn.Module):
    """Logits of `EEG_DOMAIN` and `TEXT_DOMAIN` for encoder features and text embeddings (Eq. 4)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(hidden_size, CLASSIFIER_SIZE), nn.GELU(), nn.Linear(CLASSIFIER_SIZE, 2))
        self.apply(initialise_linear)

    def forward(self, features: Float[Tensor, "*tokens hidden"]) -> Float[Tensor, "*tokens 2"]:
        """Classify each token."""
        logits: Tensor = self.layers(features)
        return logits

    def loss_sum(self, features: Float[Tensor, "*tokens hidden"], domain: int) -> Float[Tensor, ""]:
        """Sum of the tokens' cross entropies, all being of ``domain``."""
        logits = self(features).flatten(0, -2)
        targets = torch.full((len(logits),), domain, device=logits.device)
        return F.cross_entropy(logits.float(), targets, reduction="sum")
