"""Keeps latents spread out: subtracts their running mean and divides by their running deviation, before unit length.

Without it a small encoder that is trained fast finds the easiest way to please the commitment loss: the same latent for
every patch, and a codebook of which one code is used. Statistics are sums over all workers' tokens, applied once a step
like the codebook's, so that the numbers do not depend on how a batch was cut.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

EPSILON = 1e-6


class RunningStandardisation(nn.Module):
    """Per feature: (x - running mean) / running deviation."""

    mean: Tensor
    variance: Tensor
    sums: Tensor

    def __init__(self, size: int, decay: float = 0.5) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))
        self.register_buffer("sums", torch.zeros(2 * size + 1, dtype=torch.float64), persistent=False)

    def forward(self, values: Float[Tensor, "*tokens size"]) -> Float[Tensor, "*tokens size"]:
        """Standardise with the statistics of the steps before; in training also collect those of this step."""
        if self.training:
            self.sums += _sums(values.detach())
        standardised: Tensor = (values - self.mean) / (self.variance + EPSILON).sqrt()
        return standardised

    @torch.no_grad()
    def update(self, reduce: Callable[[Tensor], Tensor]) -> None:
        """Move the statistics by what was collected since the last update, summed over workers by ``reduce``."""
        mean, variance, count = _moments(reduce(self.sums))
        self.sums.zero_()
        if count:
            self.mean.lerp_(mean.to(self.mean), 1 - self.decay)
            self.variance.lerp_(variance.to(self.variance), 1 - self.decay)

    @torch.no_grad()
    def start(self, samples: Float[Tensor, "samples size"]) -> None:
        """Take the statistics of the first batch."""
        mean, variance, _ = _moments(_sums(samples))
        self.mean.copy_(mean)
        self.variance.copy_(variance)
        self.sums.zero_()


class FixedStandardisation(nn.Module):
    """Per feature: (x - mean) / deviation, both measured once on the first batch and kept.

    A small encoder's features differ from token to token by little beside what they have in common; a language model
    that starts from random weights then takes long to see the difference.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))

    def forward(self, values: Float[Tensor, "*tokens size"]) -> Float[Tensor, "*tokens size"]:
        """Standardise."""
        standardised: Tensor = (values - self.mean) / self.deviation
        return standardised

    @torch.no_grad()
    def start(self, samples: Sequence[Float[Tensor, "*tokens size"]], reduce: Callable[[Tensor], Tensor]) -> None:
        """Measure on samples; ``reduce`` sums a tensor over workers, whose samples may differ in number."""
        sums = torch.zeros(2 * len(self.mean) + 1, dtype=torch.float64, device=self.mean.device)
        for part in samples:
            sums += _sums(part)
        mean, variance, count = _moments(reduce(sums))
        if count:
            self.mean.copy_(mean)
            self.deviation.copy_((variance + EPSILON).sqrt())


def _sums(values: Tensor) -> Tensor:
    flat = values.reshape(-1, values.shape[-1]).double()
    return torch.cat([flat.sum(0), flat.square().sum(0), flat.new_tensor([len(flat)])])


def _moments(sums: Tensor) -> tuple[Tensor, Tensor, float]:
    size, count = len(sums) // 2, float(sums[-1])
    mean = sums[:size] / max(count, 1)
    return mean, (sums[size:-1] / max(count, 1) - mean.square()).clamp(min=0), count
