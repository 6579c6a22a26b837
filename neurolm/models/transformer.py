"""The pre-norm transformer of the neural tokenizer's encoder and decoders.

- layer norm before attention and before the MLP (epsilon 1e-5), residual around each; no norm after the last block;
- one fused projection to queries, keys and values; heads are contiguous slices; scale 1 / sqrt(head size);
- MLP of four times the width with the exact (erf) GELU; no dropout;
- one flag for all biases: the released neural tokenizer has none.
"""

import math

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from neurolm.config import UserError, config


@config
class TransformerConfig:
    """Size of a transformer."""

    hidden_size: int = 768
    """Width of a token's vector."""
    num_layers: int = 12
    """Number of blocks."""
    num_heads: int = 12
    """Attention heads; must divide the width."""
    bias: bool = False
    """Whether linear layers and layer norms have biases."""

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise UserError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=config.bias)
        self.output = nn.Linear(config.hidden_size, config.hidden_size, bias=config.bias)

    def forward(
        self, x: Float[Tensor, "batch tokens hidden"], mask: Bool[Tensor, "#batch 1 #tokens tokens"] | None = None
    ) -> Float[Tensor, "batch tokens hidden"]:
        """Mix the tokens; without a mask every token sees every token."""
        query, key, value = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # batch heads tokens size
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.output(mixed.transpose(1, 2).flatten(-2))


class MLP(nn.Module):
    """Two linear layers with the exact GELU between them."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden_size, 4 * config.hidden_size, bias=config.bias)
        self.down = nn.Linear(4 * config.hidden_size, config.hidden_size, bias=config.bias)

    def forward(self, x: Float[Tensor, "batch tokens hidden"]) -> Float[Tensor, "batch tokens hidden"]:
        """Change every token on its own."""
        return self.down(F.gelu(self.up(x)))


class Block(nn.Module):
    """Attention, then MLP, each on normalised input and added to what was there."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=1e-5, bias=config.bias)
        self.attention = Attention(config)
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=1e-5, bias=config.bias)
        self.mlp = MLP(config)

    def forward(
        self, x: Float[Tensor, "batch tokens hidden"], mask: Bool[Tensor, "#batch 1 #tokens tokens"] | None = None
    ) -> Float[Tensor, "batch tokens hidden"]:
        """One layer."""
        x = x + self.attention(self.attention_norm(x), mask)
        return x + self.mlp(self.mlp_norm(x))


class Transformer(nn.Module):
    """A stack of blocks; without a mask attention is full, never causal."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        blocks = [Block(config) for _ in range(config.num_layers)]
        for depth, block in enumerate(blocks, start=1):
            block.apply(initialise_linear)
            # Released code: the branches of block i are scaled down by sqrt(2 i), so that their sum keeps its variance.
            block.attention.output.weight.data.div_(math.sqrt(2 * depth))
            block.mlp.down.weight.data.div_(math.sqrt(2 * depth))
        self.blocks = nn.ModuleList(blocks)

    def forward(
        self, x: Float[Tensor, "batch tokens hidden"], mask: Bool[Tensor, "#batch 1 #tokens tokens"] | None = None
    ) -> Float[Tensor, "batch tokens hidden"]:
        """All layers, without a final norm."""
        for block in self.blocks:
            x = block(x, mask)
        return x


def initialise_linear(module: nn.Module) -> None:
    """Initialise a linear layer as the released code does: truncated normal of deviation 0.02, no bias."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
