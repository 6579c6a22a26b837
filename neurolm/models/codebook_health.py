"""What a codebook's codes say: how many are used, and whether they say more than where a token is."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from jaxtyping import Int
from torch import Tensor

COLLAPSED_PERPLEXITY, COLLAPSED_SHARE = 4.0, 0.01
"""A codebook of lower perplexity, or of a lower one than this share of its size, has collapsed."""
POSITIONAL_SHARE = 0.5
"""Codes that keep less than this share of their entropy once their place is known are positional."""


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


def codebook_alarms(metrics: Mapping[str, float], codebook_size: int) -> list[str]:
    """What is wrong with a codebook, in words with its numbers; empty where nothing is.

    ``metrics`` has the fields of `CodebookHealth` as ``codebook_<field>``, as validation reports them.
    """
    health = CodebookHealth(**{field.name: metrics[f"codebook_{field.name}"] for field in fields(CodebookHealth)})
    alarms = []
    if health.perplexity < max(COLLAPSED_PERPLEXITY, COLLAPSED_SHARE * codebook_size):
        alarms.append(
            f"collapsed codebook: perplexity {health.perplexity:.1f} of {codebook_size} codes, "
            f"{health.usage:.1%} in use; lower optimizer.learning_rate, or set model.latent_norm=running and "
            "model.revive_below=0.1"
        )
    within = min(health.entropy, health.conditional_entropy_limit)
    if within > 0 and health.conditional_entropy < POSITIONAL_SHARE * within:
        alarms.append(
            f"positional codebook: codes have {health.entropy:.2f} nats, {health.conditional_entropy:.2f} once their "
            f"channel and second are known (up to {within:.2f} could be seen): they say where a token is, not what it "
            "holds, and pre-training will learn positions; set model.embedding_init_std=0.02"
        )
    return alarms


def _entropy(counts: Tensor) -> float:
    share = counts.double() / counts.sum()
    return float(torch.special.entr(share).sum())
