"""What the loop expects of a training stage."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from neurolm.models.transformer import Transformer
from neurolm.sequences import Batch, WindowGroup, no_windows
from neurolm.training.context import RunContext
from neurolm.training.passes import with_passes

Precision = Literal["float32", "bfloat16"]
"""In what the products of a forward and backward pass are computed."""


class Stage(nn.Module):
    """A model together with the losses that train it.

    A call returns this worker's *share* of every global mean: sums divided by the global number of elements in
    ``totals``, so that shares add up to the mean over workers and micro-batches. The key ``loss`` is back-propagated,
    the others are reported. A key ``raw/eeg_tokens`` has sums of that loss by the batch's strata, to be divided by the
    number of these elements in each. With ``precision`` bfloat16, products are computed under autocast; losses and the
    quantizer stay in fp32, and so do weights and gradients unless an engine keeps them otherwise.
    """

    precision: Precision = "float32"
    no_windows: WindowGroup = no_windows()
    """What a worker without windows passes through the model."""
    passes_with: RunContext | None = None
    """The workers that must all make the same passes, where an engine partitions weights."""
    settle: Callable[[], None] = staticmethod(lambda: None)
    """Called after a validation; an engine that gathers weights ahead of passes gives them back then."""

    def forward(self, batch: Batch, totals: dict[str, float]) -> dict[str, Tensor]:
        """The losses in the stage's precision."""
        batch = self.with_passes(batch).to(next(self.parameters()).device)
        with self.products():
            return self.loss_shares(batch, totals)

    def products(self) -> torch.autocast:
        """What a forward pass is computed under."""
        device = next(self.parameters()).device.type
        return torch.autocast(device, dtype=torch.bfloat16, enabled=self.precision == "bfloat16")

    def with_passes(self, batch: Batch) -> Batch:
        """The batch with the passes that this worker has to make; see `neurolm.training.passes`."""
        return with_passes(batch, self.no_windows, self.passes_with)

    def without_text(self) -> None:
        """Called for a run that reads no text: freeze what only text reaches, which engines would decay to nothing."""

    def exact_parts(self) -> Sequence[nn.Module]:
        """Modules that learn nothing and must stay in fp32 when weights are kept in bfloat16."""
        return ()

    def checkpoint_blocks(self) -> None:
        """Keep only the input of every block that learns, and compute the block again in the backward pass."""
        for block in trainable_blocks(self):
            block.forward = functools.partial(_again_in_backward, block.forward)

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


def trainable_blocks(stage: nn.Module) -> Iterator[nn.Module]:
    """The transformer blocks that learn: the language model's, or those of the tokenizer's encoder and decoders."""
    for module in stage.modules():
        children = module.blocks if isinstance(module, Transformer) else None
        if hasattr(module, "get_input_embeddings"):  # a model of transformers
            children = next((one for one in module.children() if isinstance(one, nn.ModuleList)), None)
        for block in children or ():
            if any(parameter.requires_grad for parameter in block.parameters()):
                yield block


def _again_in_backward(forward: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*arguments, **named)
    return checkpoint(forward, *arguments, use_reentrant=False, **named)
