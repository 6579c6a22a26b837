"""The paper's losses as sums, and the targets they compare with.

Every loss here is a *sum*. Whoever trains divides by the number of terms in the whole batch, over all workers and
micro-batches, so that the gradient does not depend on how the batch was cut.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

NUM_BINS = 100
"""Frequency bins that the tokenizer reconstructs: 0 to 99 Hz, one per Hz."""
LOG_FLOOR = 0.01
"""Log amplitudes are floored near this share of the window's mean amplitude (the band-stop is empty but for noise)."""


def raw_target(signal: Float[Tensor, "batch tokens points"]) -> Float[Tensor, "batch tokens points"]:
    """The signal with mean 0 and deviation 1 over its window: target of the temporal decoder (Eq. 3).

    The paper compares with the signal as it is; we follow the released code. A constant window has no target (NaN).
    """
    return _standardise(signal)


def frequency_target(
    signal: Float[Tensor, "batch tokens points"], amplitude: Literal["linear", "log"] = "linear"
) -> Float[Tensor, "batch tokens bins"]:
    """Fourier amplitudes of each patch, standardised over the window: target of the frequency decoder (Eq. 2 and 3).

    As released, mean and deviation are those of all 200 bins of all tokens, DC and the mirrored half included; bins 0
    to 99 are kept then. ``log`` takes the logarithm first, which lets the weak high frequencies count.
    """
    half = torch.fft.rfft(signal.float()).abs()
    if amplitude == "log":
        half = torch.log(half + LOG_FLOOR * half.mean((-2, -1), keepdim=True))
    mirrored = half[..., 1:-1].flip(-1)
    return _standardise(torch.cat([half, mirrored], dim=-1))[..., :NUM_BINS]


def _standardise(x: Tensor) -> Tensor:
    deviation, mean = torch.std_mean(x.float(), dim=(-2, -1), keepdim=True)  # unbiased, no epsilon: as released
    return (x - mean) / deviation


def squared_errors_of(output: Float[Tensor, "*shape"], target: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Squared differences (the terms of Eq. 3), in fp32."""
    return (output.float() - target).square()


def next_second_codes(codes: Int[Tensor, "batch tokens"], num_channels: int) -> Int[Tensor, "batch targets"]:
    """Targets of multi-channel autoregression (Eq. 5): token i predicts the code of its channel one second later.

    These are the targets of the first ``tokens - num_channels`` tokens; the last second predicts nothing.
    """
    return codes[:, num_channels:]
