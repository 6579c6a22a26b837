"""FlexAttention for the language model: blocks of the mask that nobody may attend to are never computed.

Torch fuses it on GPUs. On a CPU it has a slow forward pass and no backward pass, which is enough to test the masks.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers.modeling_utils import AttentionInterface

NAME = "neurolm_flex"
"""The name under which ``transformers`` knows it."""


def block_mask(mask: Bool[Tensor, "#batch tokens tokens"] | None, num_tokens: int, device: torch.device) -> BlockMask:
    """The sparse form of a boolean mask, one for all heads; None is causal."""

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return key <= query if mask is None else mask[batch if len(mask) > 1 else 0, query, key]

    batches = None if mask is None or len(mask) == 1 else len(mask)
    made = create_block_mask(sees, batches, None, num_tokens, num_tokens, device=str(device))
    made.ndim = 4  # type: ignore[attr-defined]  # GPT-2 looks whether it has been given a whole mask
    return made


def _attention(
    module: nn.Module,
    query: Float[Tensor, "batch heads tokens size"],
    key: Float[Tensor, "batch groups tokens size"],
    value: Float[Tensor, "batch groups tokens size"],
    attention_mask: BlockMask,
    scaling: float | None = None,
    **settings: Any,
) -> tuple[Float[Tensor, "batch tokens heads size"], None]:
    """What ``transformers`` calls in place of its own attention."""
    mixed = _kernel(query.device.type)(
        query, key, value, block_mask=attention_mask, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
    )
    return mixed.transpose(1, 2).contiguous(), None


@functools.cache
def _kernel(device_type: str) -> Callable[..., Tensor]:
    return flex_attention if device_type == "cpu" else torch.compile(flex_attention)  # type: ignore[return-value]


AttentionInterface.register(NAME, _attention)
