"""What the loop expects of a training stage."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from neurolm.sequences import Batch
from neurolm.training.context import RunContext

Precision = Literal["float32", "bfloat16"]
"""In what the products of a forward and backward pass are computed."""


class Stage(nn.Module):
    """A model together with the losses that train it.

    A call returns this worker's *share* of every global mean: sums divided by the global number of elements in
    ``totals``, so that shares add up to the mean over workers and micro-batches. The key ``loss`` is back-propagated,
    the others are reported. A key ``raw/eeg_tokens`` has sums of that loss by the batch's strata, to be divided by the
    number of these elements in each. With ``precision`` bfloat16, products are computed under autocast; weights, their
    gradients, losses and the quantizer stay in fp32.
    """

    precision: Precision = "float32"

    def forward(self, batch: Batch, totals: dict[str, float]) -> dict[str, Tensor]:
        """The losses in the stage's precision."""
        device = next(self.parameters()).device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"):
            return self.loss_shares(batch, totals)

    def compile_blocks(self) -> None:
        """Compile every transformer block with torch, once per shape that it meets; names of weights stay."""
        for module in self.modules():
            if isinstance(module, nn.ModuleList):
                for block in module:
                    block.compile()

    def loss_shares(self, batch: Batch, totals: dict[str, float]) -> dict[str, Tensor]:
        """This worker's share of the losses."""
        raise AssertionError(f"{type(self).__name__} defines no losses")

    def before_training(self, batches: Sequence[Batch], context: RunContext) -> None:
        """Called once, before the first step of a fresh run, with the first step's micro-batches."""

    def before_step(self, step: int, total_steps: int) -> None:
        """Called before every step, for what follows a schedule."""

    def after_step(self, context: RunContext) -> None:
        """Called after every optimizer step, for what is learnt without gradients."""

    def drop_step(self) -> None:
        """Called in place of `after_step` where a step's batch is left out: forget what was collected from it."""
