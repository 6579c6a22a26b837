"""The codebook: nearest code (Eq. 1), straight-through gradient, moving averages, k-means start.

Everything here runs in fp32, also under autocast: with bf16, as released, the nearest code has three significant
digits and some codes flip (``distance_dtype="autocast"`` gives that back). No one-hot of tokens x codes is ever made.

The codebook moves by exponential moving averages, as in the released code, where the paper's Eq. 3 has a gradient.
A training forward pass only *accumulates* how often each code was used and the sum of its latents; `Quantizer.update`
applies one moving-average step for all forward passes since the last, with the sums reduced over workers, so that
every worker keeps the same codebook.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

SCORES_AT_ONCE = 2**24
"""Scores (tokens x codes) held in memory at a time by the search for nearest codes: 64 MB in fp32."""
KMEANS_ITERATIONS = 10


class Quantized(NamedTuple):
    """What the quantizer makes of latents."""

    latents: Float[Tensor, "*tokens latent"]
    """Codebook rows in value, the given latents in gradient (straight-through)."""
    codes: Int[Tensor, "*tokens"]
    squared_error: Float[Tensor, "*tokens latent"]
    """(sg(codebook row) - latent)^2 per element: the commitment loss of Eq. 3 before its mean and its weight."""


class Quantizer(nn.Module):
    """A codebook of unit vectors.

    Args:
        codebook_size: number of codes.
        codebook_dim: length of a code's vector.
        decay: how much of a code's vector one update keeps.
        revive_below: a code used less than this share of the average use moves next to one of the most used codes;
            0 never moves a code, as released.
        distance_dtype: fp32, or autocast: latents times codes in the precision of the surroundings, as released.
    """

    codebook: Float[Tensor, "codes latent"]
    cluster_size: Float[Tensor, " codes"]
    initialised: Bool[Tensor, ""]
    num_updates: Int[Tensor, ""]
    counts: Float[Tensor, " codes"]
    sums: Float[Tensor, "codes latent"]

    def __init__(
        self,
        codebook_size: int,
        codebook_dim: int,
        decay: float = 0.99,
        revive_below: float = 0.0,
        distance_dtype: Literal["fp32", "autocast"] = "fp32",
    ) -> None:
        super().__init__()
        self.decay, self.revive_below, self.distance_dtype = decay, revive_below, distance_dtype
        self.register_buffer("codebook", F.normalize(torch.randn(codebook_size, codebook_dim), dim=-1))
        self.register_buffer("cluster_size", torch.zeros(codebook_size))
        self.register_buffer("initialised", torch.tensor(False))
        self.register_buffer("num_updates", torch.tensor(0))
        self.register_buffer("counts", torch.zeros(codebook_size), persistent=False)
        self.register_buffer("sums", torch.zeros(codebook_size, codebook_dim), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Quantizer":
        """Follow ``.to(device)`` but not ``.bfloat16()``: half-precision engines must not round the codebook."""

        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep_dtype, recurse)

    @torch.no_grad()
    def nearest(self, latents: Float[Tensor, "*tokens latent"]) -> Int[Tensor, "*tokens"]:
        """The code whose row is nearest to each latent (Eq. 1)."""
        if self.distance_dtype == "autocast" and torch.is_autocast_enabled(latents.device.type):
            return self._nearest_as_released(latents)
        with torch.autocast(latents.device.type, enabled=False):
            # |z - w|^2 is least where z w - |w|^2 / 2 is largest.
            half_norms = self.codebook.square().sum(-1) / 2
            rows = latents.reshape(-1, latents.shape[-1]).float()
            chunks = rows.split(max(1, SCORES_AT_ONCE // len(self.codebook)))
            codes = [torch.addmm(-half_norms, chunk, self.codebook.T).argmax(-1) for chunk in chunks]
        return torch.cat(codes).view(latents.shape[:-1]) if codes else rows.new_zeros(latents.shape[:-1]).long()

    def _nearest_as_released(self, latents: Tensor) -> Tensor:
        """Under autocast: rounded products, whose many ties the fp32 norms break in the released order of sums."""
        rows, norms = latents.flatten(0, -2).float(), self.codebook.square().sum(-1)
        chunks = rows.split(max(1, SCORES_AT_ONCE // len(norms)))
        distances = (one.square().sum(-1, keepdim=True) + norms - 2 * (one @ self.codebook.T) for one in chunks)
        return torch.cat([one.argmin(-1) for one in distances]).view(latents.shape[:-1])

    def forward(
        self, latents: Float[Tensor, "batch tokens latent"], weights: Float[Tensor, " tokens"] | None = None
    ) -> Quantized:
        """Replace latents by codebook rows; in training mode also accumulate what `update` needs.

        ``weights`` says how many tokens each token stands for in the statistics (default: one).
        """
        codes = self.nearest(latents)
        rows = F.embedding(codes, self.codebook)
        if self.training:
            self._accumulate(latents.detach(), codes, weights)
        straight_through = latents + (rows - latents).detach()
        return Quantized(straight_through, codes, (rows - latents).square())

    @torch.no_grad()
    def _accumulate(self, latents: Tensor, codes: Tensor, weights: Tensor | None) -> None:
        with torch.autocast(latents.device.type, enabled=False):
            weight = torch.ones_like(codes, dtype=torch.float32) if weights is None else weights.expand(codes.shape)
            self.counts.index_add_(0, codes.flatten(), weight.flatten())
            self.sums.index_add_(0, codes.flatten(), (latents.float() * weight[..., None]).flatten(0, -2))

    @torch.no_grad()
    def update(self, reduce: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> None:
        """One moving-average step from what was accumulated; ``reduce`` sums a tensor over workers.

        A used code moves towards the mean of its latents (both of unit length); an unused code stays.
        """
        totals = reduce(torch.cat([self.sums, self.counts[:, None]], dim=1))
        sums, counts = totals[:, :-1], totals[:, -1]
        means = F.normalize(sums / counts[:, None].clamp(min=1), dim=-1)
        targets = torch.where(counts[:, None] > 0, means, self.codebook)
        self.codebook.copy_(F.normalize(self.decay * self.codebook + (1 - self.decay) * targets, dim=-1))
        self.cluster_size.mul_(self.decay).add_(counts, alpha=1 - self.decay)
        self.num_updates += 1
        self.sums.zero_()
        self.counts.zero_()
        if self.revive_below > 0:
            self._revive()

    def _revive(self) -> None:
        """Move each dead code next to one of the most used codes, the two sharing its use; same on every worker."""
        dead = self.cluster_size < self.revive_below * self.cluster_size.mean()
        by_use = self.cluster_size.argsort(descending=True, stable=True)
        donors = by_use[(dead.cumsum(0) - 1) % (~dead).sum().clamp(min=1)]
        generator = torch.Generator().manual_seed(int(self.num_updates))
        noise = torch.randn(self.codebook.shape, generator=generator).to(self.codebook)
        moved = F.normalize(self.codebook[donors] + 0.1 * F.normalize(noise, dim=-1), dim=-1)
        sharers = torch.ones_like(self.cluster_size).index_add_(0, donors, dead.float())
        shared = self.cluster_size / sharers
        self.codebook.copy_(torch.where(dead[:, None], moved, self.codebook))
        self.cluster_size.copy_(torch.where(dead, shared[donors], shared))

    @torch.no_grad()
    def start(self, samples: Float[Tensor, "samples latent"], seed: int) -> None:
        """Take the k-means of ``samples`` as codebook: ten cosine iterations from rows drawn with ``seed``.

        The result is a function of the samples, their order and the seed. With fewer samples than codes, rows are
        drawn with replacement.
        """
        generator = torch.Generator().manual_seed(seed)
        num_codes, num_samples = len(self.codebook), len(samples)
        if num_samples >= num_codes:
            drawn = torch.randperm(num_samples, generator=generator)[:num_codes]
        else:
            drawn = torch.randint(num_samples, (num_codes,), generator=generator)
        samples = samples.to(self.codebook)
        means, _ = cosine_kmeans(samples, samples[drawn.to(samples.device)])
        self.codebook.copy_(means)
        self.initialised.fill_(True)


def cosine_kmeans(
    samples: Float[Tensor, "samples latent"],
    means: Float[Tensor, "means latent"],
    num_iterations: int = KMEANS_ITERATIONS,
) -> tuple[Float[Tensor, "means latent"], Int[Tensor, " means"]]:
    """k-means by cosine similarity of unit vectors, from the given first means.

    Returns the unit-length means and how many samples the last assignment gave each; a mean without samples stays.
    """
    counts = means.new_zeros(len(means), dtype=torch.long)
    for _ in range(num_iterations):
        chunks = samples.split(max(1, SCORES_AT_ONCE // len(means)))
        nearest = torch.cat([(chunk @ means.T).argmax(-1) for chunk in chunks])
        counts = torch.bincount(nearest, minlength=len(means))
        sums = torch.zeros_like(means).index_add_(0, nearest, samples)
        moved = F.normalize(sums / counts[:, None].clamp(min=1), dim=-1)
        means = torch.where(counts[:, None] > 0, moved, means)
    return means, counts
