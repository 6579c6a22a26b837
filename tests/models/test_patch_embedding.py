import pytest
import torch
import torch.nn.functional as F
from torch import nn

from neurolm.models.patch_embedding import PatchEmbedding, weighted_group_norm


def test_weights_count_tokens_as_often() -> None:
    norm = nn.GroupNorm(2, 4)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(3, 4, 5, 6)
    repeated = torch.cat([x, x[:, :, 4:].expand(-1, -1, 11, -1)], dim=2)
    ours = weighted_group_norm(x, norm, torch.tensor([1.0, 1, 1, 1, 12]))
    torch.testing.assert_close(ours, norm(repeated)[:, :, :5], atol=1e-5, rtol=1e-5)


def test_one_zero_token_stands_for_all_padding() -> None:
    model = PatchEmbedding(8)
    signal = torch.randn(2, 6, 200)
    padded = model(F.pad(signal, (0, 0, 0, 94)))
    virtual = model(F.pad(signal, (0, 0, 0, 1)), torch.tensor([1.0] * 6 + [94]))
    torch.testing.assert_close(virtual, padded[:, :7], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("norm", "sees_window"), [("window", True), ("token", False)])
def test_norm_says_whether_a_patch_sees_its_window(norm: str, sees_window: bool) -> None:
    model = PatchEmbedding(8, norm)
    signal = torch.randn(2, 4, 200)
    changed = signal.clone()
    changed[:, 3] *= 10
    difference = (model(signal) - model(changed))[:, :3].abs().max()
    assert difference > 1e-4 if sees_window else difference < 1e-6


def test_patches_do_not_mix_in_the_convolutions() -> None:
    """With per-patch statistics, the order of patches is the order of vectors."""
    model = PatchEmbedding(8, "token")
    signal = torch.randn(1, 5, 200)
    torch.testing.assert_close(model(signal.flip(1)), model(signal).flip(1))
