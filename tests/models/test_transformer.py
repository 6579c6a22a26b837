import math

import pytest
import torch
import torch.nn.functional as F

from neurolm.models.transformer import Transformer, TransformerConfig


def test_block_by_hand() -> None:
    """One block of two heads, computed with plain matrix products."""
    model = Transformer(TransformerConfig(hidden_size=4, num_layers=1, num_heads=2))
    x = torch.randn(1, 3, 4)
    block = model.blocks[0]
    query, key, value = (F.layer_norm(x, (4,)) @ block.attention.qkv.weight.T)[0].chunk(3, dim=-1)
    heads = []
    for columns in (slice(0, 2), slice(2, 4)):
        scores = query[:, columns] @ key[:, columns].T / math.sqrt(2)
        heads.append(scores.softmax(-1) @ value[:, columns])
    after = x + torch.cat(heads, -1) @ block.attention.output.weight.T
    inner = F.layer_norm(after, (4,)) @ block.mlp.up.weight.T
    erf_gelu = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2
    torch.testing.assert_close(model(x), after + erf_gelu @ block.mlp.down.weight.T)


def test_mask_hides_columns_and_none_hides_nothing() -> None:
    model = Transformer(TransformerConfig(hidden_size=8, num_layers=2, num_heads=2))
    x, changed = torch.randn(2, 1, 5, 8)
    x[:, :4] = changed[:, :4]
    hidden = torch.ones(1, 1, 1, 5, dtype=torch.bool)
    hidden[..., 4] = False
    torch.testing.assert_close(model(x, hidden)[:, :4], model(changed, hidden)[:, :4])
    assert (model(x) - model(changed))[:, :4].abs().max() > 1e-4


def test_residual_branches_start_smaller_the_deeper() -> None:
    model = Transformer(TransformerConfig(hidden_size=128, num_layers=8, num_heads=2))
    stds = [float(block.mlp.down.weight.detach().std()) for block in model.blocks]
    assert stds == pytest.approx([0.02 / math.sqrt(2 * depth) for depth in range(1, 9)], rel=0.03)


def test_bias_flag_is_for_every_layer() -> None:
    for bias in (False, True):
        model = Transformer(TransformerConfig(hidden_size=8, num_layers=1, num_heads=2, bias=bias))
        assert sum(name.endswith("bias") for name, _ in model.named_parameters()) == (6 if bias else 0)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="hidden_size 10 is not a multiple of num_heads 4"):
        TransformerConfig(hidden_size=10, num_heads=4)
