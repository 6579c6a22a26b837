"""AdamW parameter groups and the warm-up + cosine schedule of every stage (paper, Tables 7-9)."""

import math
from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from neurolm.config import config


@config
class OptimizerConfig:
    """AdamW with linear warm-up and cosine decay."""

    learning_rate: Annotated[float, Field(gt=0)]
    """Peak learning rate, reached at the end of the warm-up."""
    min_learning_rate: Annotated[float, Field(ge=0)] = 0.0
    """Learning rate that the cosine decays towards."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of AdamW's first moment."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Decay of AdamW's second moment."""
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    """AdamW's epsilon."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Decoupled weight decay on every trainable tensor with at least two dimensions, as released."""
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Gradients are scaled down to this global norm; null never clips."""
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of all steps spent warming up."""


def build_optimizer(
    module: nn.Module, config: OptimizerConfig, shape: Callable[[nn.Parameter], torch.Size] = lambda one: one.shape
) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; vectors (biases, norms) are not decayed. Source: released code.

    ``shape`` tells that of a parameter, where an engine has partitioned it.
    """
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if len(shape(p)) >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if len(shape(p)) < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
    )


def start_moments(state: dict[str, Any], like: Tensor, dtype: torch.dtype, steps: int) -> None:
    """Give a parameter its Adam state, as the optimizer would at its first update; then count ``steps`` updates.

    Moments that are there already stay as they are.
    """
    for name in ("exp_avg", "exp_avg_sq"):
        if name not in state:
            state[name] = torch.zeros_like(like, dtype=dtype, requires_grad=False)
    if isinstance(before := state.setdefault("step", torch.tensor(0.0)), Tensor):
        before.fill_(steps)
    else:
        state["step"] = steps


def learning_rate(step: int, total_steps: int, config: OptimizerConfig) -> float:
    """The learning rate of a step (from 0), as released: warm-up from 0 to the peak inclusive, then cosine.

    The cosine never quite reaches the minimum: its last step stands one before the end of the half wave.
    """
    warmup_steps = round(config.warmup_ratio * total_steps)
    if step < warmup_steps:
        return config.learning_rate * step / max(warmup_steps - 1, 1)
    progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    span = config.learning_rate - config.min_learning_rate
    return config.min_learning_rate + 0.5 * span * (1 + math.cos(math.pi * progress))
