"""The output layer over the merged vocabulary, and its cross-entropy without ever holding all logits.

A batch of pre-training has thousands of targets and 58,496 classes: its logits, their exponentials and their gradients
are several times the size of the model. Here logits exist for a few hundred targets at a time; the gradients of hidden
states and weights are finished before the next few hundred are looked at, and the backward pass only scales them.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

LOGITS_AT_ONCE = 2**24
"""Logits that exist at any time, for all targets of a chunk together (64 MB in fp32)."""


class HeadLoss(NamedTuple):
    """Cross-entropy of many targets."""

    total: Float[Tensor, ""]
    """Sum of -log p(target) in nats, in fp32."""
    num_correct: Float[Tensor, ""]
    """Targets that no other class of their position is more likely than."""


class VocabularyHead(nn.Module):
    """Hidden states to scores of all classes, text ids first and EEG codes after them; no bias."""

    def __init__(self, hidden_size: int, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, hidden_size))
        bound = hidden_size**-0.5  # torch's default for a linear layer, as released
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(
        self,
        hidden: Float[Tensor, "*positions width"],
        targets: Int[Tensor, "*positions"] | None = None,
        label_smoothing: float = 0.0,
    ) -> Float[Tensor, "*positions classes"] | tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Logits; or, given the class that each position should predict, the two parts of a `HeadLoss`."""
        if targets is None:
            return F.linear(hidden, self.weight)
        flat, places = hidden.flatten(0, -2), targets.flatten()
        parts: tuple[Tensor, Tensor] = _LinearCrossEntropy.apply(
            flat, self.weight, places, label_smoothing, torch.is_grad_enabled()
        )
        return parts


class _LinearCrossEntropy(torch.autograd.Function):
    """Sum of cross-entropies of ``hidden @ weight.T``, chunk by chunk, gradients included."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, label_smoothing: float, needs_gradients: bool
    ) -> tuple[Tensor, Tensor]:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        with torch.autocast(device, enabled=False):
            matrix = weight.to(dtype)
            total = torch.zeros((), device=hidden.device)
            num_correct = torch.zeros((), device=hidden.device)
            hidden_gradient = torch.empty_like(hidden) if needs_gradients else None
            weight_gradient = torch.zeros_like(weight) if needs_gradients and ctx.needs_input_grad[1] else None
            size = min(max(1, LOGITS_AT_ONCE // len(weight)), len(hidden))
            room = hidden.new_empty(size, len(weight), dtype=dtype)  # the same memory for every chunk
            for start in range(0, len(hidden), max(size, 1)):
                rows, places = hidden[start : start + size].to(dtype), targets[start : start + size, None]
                logits = torch.mm(rows, matrix.T, out=room[: len(rows)]).float()
                largest = logits.amax(-1, keepdim=True)
                picked = logits.gather(1, places)
                num_correct += (picked >= largest).sum()
                mean = logits.mean(-1, keepdim=True) if label_smoothing else picked
                probabilities = logits.sub_(largest).exp_()
                sums = probabilities.sum(-1, keepdim=True)
                expected = (1 - label_smoothing) * picked + label_smoothing * mean
                total += (sums.log() + largest - expected).sum()
                if hidden_gradient is None:
                    continue
                difference = probabilities.div_(sums)  # becomes the gradient of the logits, in place
                if label_smoothing:
                    difference.sub_(label_smoothing / len(weight))
                difference.scatter_add_(1, places, difference.new_full(places.shape, label_smoothing - 1))
                difference = difference.to(dtype)
                hidden_gradient[start : start + size] = difference @ matrix
                if weight_gradient is not None:
                    _add_product(weight_gradient, difference.T, rows)
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        ctx.mark_non_differentiable(num_correct)
        return total, num_correct

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden_gradient, weight_gradient = ctx.saved_tensors
        scaled = [None if one is None else one.mul_(gradients[0]) for one in (hidden_gradient, weight_gradient)]
        return (*scaled, None, None, None)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """``total += left @ right``, without a temporary where all three have one precision."""
    if total.dtype == right.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)
