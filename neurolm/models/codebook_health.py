"""What a codebook's codes say: how many are used, and whether they say more than where a token is."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class CodebookHealth:
    """Statistics of the codes of many windows; entropies in nats."""

    usage: float
    """Share of the codebook that occurs at all."""
    perplexity: float
    """exp(H(code)): the number of equally used codes with the same entropy."""
    entropy: float
    """H(code)."""
    conditional_entropy: float
    """H(code | channel, second). Near 0, the codes only say where a token is, whatever the perplexity."""
    conditional_entropy_limit: float
    """The largest H(code | channel, second) that this many tokens can show: a cell of m tokens shows at most log m."""


def codebook_health(
    codes: Int[Tensor, "*tokens"],
    channel_index: Int[Tensor, "*#tokens"],
    time_index: Int[Tensor, "*#tokens"],
    codebook_size: int,
) -> CodebookHealth:
    """Usage and entropies of codes, estimated by counting; channel and time indices broadcast against the codes."""
    tokens = torch.broadcast_tensors(codes, channel_index, time_index)
    codes, channel_index, time_index = (part.flatten() for part in tokens)
    places = torch.unique(torch.stack([channel_index, time_index]), dim=1, return_inverse=True)[1]
    counts = torch.bincount(codes, minlength=codebook_size)
    place_counts = torch.bincount(places)
    joint_counts = torch.unique(torch.stack([places, codes]), dim=1, return_counts=True)[1]
    entropy = _entropy(counts)
    limit = place_counts * place_counts.clamp(max=codebook_size).double().log() / len(codes)
    return CodebookHealth(
        usage=float((counts > 0).double().mean()),
        perplexity=math.exp(entropy),
        entropy=entropy,
        conditional_entropy=max(0.0, _entropy(joint_counts) - _entropy(place_counts)),
        conditional_entropy_limit=float(limit.sum()),
    )


def _entropy(counts: Tensor) -> float:
    share = counts.double() / counts.sum()
    return float(torch.special.entr(share).sum())
