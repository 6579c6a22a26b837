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

LOGITS_AT_ONCE = 2**25
"""Logits that exist at any time, for all targets of a chunk together (128 MB in fp32). Each chunk costs a pass over the
gradient of all weights: half as many made the head of NeuroLM-B a tenth faster, a quarter as many no faster still."""


class HeadLoss(NamedTuple):
    """Cross-entropy of many targets."""

    total: Float[Tensor, ""]
    """Sum of -log p(target) in nats, in fp32."""
    num_correct: Float[Tensor, ""]
    """Targets that no other class of their position is more likely than."""
    each: Float[Tensor, " targets"]
    """The terms of ``total``, without gradients."""


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
    ) -> Float[Tensor, "*positions classes"] | tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, " targets"]]:
        """Logits; or, given the class that each position should predict, the parts of a `HeadLoss`."""
        if targets is None:
            return F.linear(hidden, self.weight)
        flat, places = hidden.flatten(0, -2), targets.flatten()
        parts: tuple[Tensor, Tensor, Tensor] = _LinearCrossEntropy.apply(
            flat, self.weight, places, label_smoothing, torch.is_grad_enabled()
        )
        return parts


class _LinearCrossEntropy(torch.autograd.Function):
    """Sum of cross-entropies of ``hidden @ weight.T``, chunk by chunk.

    A single chunk, as in instruction tuning, keeps the gradient of its logits and leaves the products to the backward
    pass, which then writes the weights' gradient only once. Several chunks finish their gradients at once, so that no
    more than one chunk's logits ever exist.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, label_smoothing: float, needs_gradients: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        with torch.autocast(device, enabled=False):
            matrix, rows = weight.to(dtype), hidden.to(dtype)
            size = max(1, LOGITS_AT_ONCE // len(weight))
            ctx.is_one_chunk = len(hidden) <= size
            if ctx.is_one_chunk:
                each, num_correct, difference = _logits_loss(rows @ matrix.T, targets, label_smoothing)
                total = each.sum()
                if needs_gradients:
                    ctx.save_for_backward(difference.to(dtype), rows, matrix)
            else:
                wanted = needs_gradients, needs_gradients and ctx.needs_input_grad[1]
                total, num_correct, each, *gradients = _in_chunks(rows, matrix, targets, label_smoothing, size, wanted)
                ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(num_correct, each)
        return total, num_correct, each

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if not ctx.is_one_chunk:
            scaled = [None if one is None else one.mul_(gradients[0]) for one in ctx.saved_tensors]
            return (*scaled, None, None, None)
        difference, rows, matrix = ctx.saved_tensors
        difference = difference * gradients[0].to(difference.dtype)
        weight_gradient = (difference.T @ rows).float() if ctx.needs_input_grad[1] else None
        return (difference @ matrix).float(), weight_gradient, None, None, None


def _logits_loss(logits: Tensor, targets: Tensor, label_smoothing: float) -> tuple[Tensor, Tensor, Tensor]:
    """Every target's loss, number of correct ones, and the gradient of the logits, which takes their place."""
    logits, places = logits.float(), targets[:, None]
    largest = logits.amax(-1, keepdim=True)
    picked = logits.gather(1, places)
    num_correct = (picked >= largest).sum().float()
    mean = logits.mean(-1, keepdim=True) if label_smoothing else picked
    probabilities = logits.sub_(largest).exp_()
    sums = probabilities.sum(-1, keepdim=True)
    expected = (1 - label_smoothing) * picked + label_smoothing * mean
    difference = probabilities.div_(sums)
    if label_smoothing:
        difference.sub_(label_smoothing / logits.shape[1])
    difference.scatter_add_(1, places, difference.new_full(places.shape, label_smoothing - 1))
    return (sums.log() + largest - expected)[:, 0], num_correct, difference


def _in_chunks(
    rows: Tensor, matrix: Tensor, targets: Tensor, label_smoothing: float, size: int, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """Summed loss, number of correct targets, losses, and the wanted gradients of hidden states and weights."""
    total, num_correct = torch.zeros((), device=rows.device), torch.zeros((), device=rows.device)
    each = rows.new_empty(len(rows), dtype=torch.float32)
    hidden_gradient = torch.empty_like(rows, dtype=torch.float32) if wanted[0] else None
    weight_gradient = None
    room = rows.new_empty(size, len(matrix))  # the same memory for every chunk
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        logits = torch.mm(part, matrix.T, out=room[: len(part)])
        losses, correct, difference = _logits_loss(logits, targets[start : start + size], label_smoothing)
        each[start : start + size] = losses
        total += losses.sum()
        num_correct += correct
        difference = difference.to(rows.dtype)
        if hidden_gradient is not None:
            hidden_gradient[start : start + size] = difference @ matrix
        if wanted[1]:
            weight_gradient = _plus_product(weight_gradient, difference.T, part)
    return total, num_correct, each, hidden_gradient, weight_gradient


def _plus_product(total: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    """``total + left @ right`` in fp32, in the place of ``total`` where there is one."""
    if total is None:
        return (left @ right).float()
    if total.dtype == right.dtype:
        return total.addmm_(left, right)  # without a temporary
    return total.add_(left @ right)
