"""The architectures written here against their descriptions: sizes, shapes, and what each part does."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from neurolm.baselines.cnn_transformer import CNNTransformer, sinusoids
from neurolm.baselines.ffcl import FFCL, folded
from neurolm.baselines.spectrogram import ResidualBlock, Spectrogram, SpectrogramEncoder
from neurolm.baselines.st_transformer import ChannelAttention, STTransformer


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_a_sine_stands_out_at_its_frequency() -> None:
    signal = torch.sin(2 * torch.pi * 12 * torch.arange(800) / 200).expand(2, 3, -1)
    found = Spectrogram()(signal)
    assert found.shape == (2, 3, 101, 81)  # 0 to 100 Hz, a frame every 50 ms
    assert found[0, 0, :, 40].argmax() == 12
    assert found[0, 0, 12, 40].item() == pytest.approx(100 / 200**0.5, rel=1e-3)  # half the points, normalised


def test_a_block_has_three_convolutions_and_divides_both_axes_by_four() -> None:
    block = ResidualBlock(5, 8)
    assert size(block) == 2 * (5 * 8 * 9 + 8) + (8 * 8 * 9 + 8) + 3 * 2 * 8
    assert block(torch.randn(2, 5, 101, 81)).shape == (2, 8, 26, 21)


def encoder_size(num_channels: int) -> int:
    widths = [num_channels, 32, 64, 128, 256]
    return sum(
        2 * (9 * a * b + b) + (9 * b * b + b) + 6 * b for a, b in pairwise(widths)
    )  # fmt: skip


def test_the_encoder_makes_one_vector_of_any_length() -> None:
    encoder = SpectrogramEncoder(4)
    assert size(encoder) == encoder_size(4)
    for seconds in (1, 4, 30):
        assert encoder(torch.randn(2, 4, 200 * seconds)).shape == (2, 256)


def test_cnn_transformer() -> None:
    model = CNNTransformer(16, 2000, 6)
    layer = 4 * (256 * 256 + 256) + 2 * (256 * 256 + 256) + 2 * 2 * 256  # attention, MLP as wide, two norms
    assert size(model) == encoder_size(16) + 4 * layer + 256 * 6 + 6
    assert size(model) / 1e6 == pytest.approx(3.2, abs=0.05)  # as published
    assert [part.self_attn.num_heads for part in model.transformer.layers] == [4] * 4
    for seconds, segments in ((1, 1), (4, 4), (7, 5), (10, 5), (30, 5)):
        model = CNNTransformer(3, 200 * seconds, 2)
        assert model.num_segments == segments
        assert model(torch.randn(2, 3, 200 * seconds)).shape == (2, 2)


def test_cnn_transformer_reads_segments_in_their_order() -> None:
    model = CNNTransformer(2, 800, 2).eval()
    signal = torch.randn(1, 2, 800)
    turned = torch.cat([signal[:, :, 400:], signal[:, :, :400]], dim=2)
    with torch.no_grad():
        apart = (model(signal) - model(turned)).abs().max()
        model.positions.zero_()
        same = (model(signal) - model(turned)).abs().max()
    assert apart > 1e-4 > 1e-5 > same


def test_positions_are_the_published_sinusoids() -> None:
    codes = sinusoids(7, 256)
    assert codes.shape == (7, 256)
    for place, pair in ((3, 0), (6, 50)):
        angle = place / 10_000 ** (2 * pair / 256)
        np.testing.assert_allclose(codes[place, 2 * pair : 2 * pair + 2], [np.sin(angle), np.cos(angle)], atol=1e-5)


def test_ffcl() -> None:
    model = FFCL(16, 2000, 6)
    lstm = 4 * 256 * (100 + 256 + 2) + 4 * 256 * (256 + 256 + 2)
    assert size(model) == encoder_size(16) + lstm + 512 * 6 + 6
    assert size(model) / 1e6 == pytest.approx(2.4, abs=0.1)  # as published
    assert FFCL(3, 800, 2)(torch.randn(2, 3, 800)).shape == (2, 2)


def test_ffcl_folds_the_signal_by_every_twentieth_point() -> None:
    signal = torch.arange(2 * 80.0).reshape(1, 2, 80)
    steps = folded(signal)
    assert steps.shape == (1, 40, 4)
    assert steps[0, 0].tolist() == [0, 20, 40, 60]
    assert steps[0, 1].tolist() == [80, 100, 120, 140]  # the other channel from the same point on
    assert steps[0, 2].tolist() == [1, 21, 41, 61]


def test_st_transformer() -> None:
    model = STTransformer(16, 2000, 6)
    spatial = 2 * 2000 + 3 * (16 * 16 + 16 + 2 * 16)
    tokens = (16 * 15 * 64 + 64) + 2 * 64 + (64 * 15 * 256 + 256)
    layer = 4 * (256 * 256 + 256) + (256 * 1024 + 1024) + (1024 * 256 + 256) + 2 * 2 * 256
    assert size(model) == spatial + tokens + 4 * layer + 256 * 6 + 6
    assert size(model) / 1e6 == pytest.approx(3.5, abs=0.1)  # as published
    assert [part.self_attn.num_heads for part in model.temporal.layers] == [8] * 4
    assert all(part.norm_first for part in model.temporal.layers)
    for seconds in (1, 4):
        assert STTransformer(3, 200 * seconds, 2)(torch.randn(2, 3, 200 * seconds)).shape == (2, 2)


def test_st_transformer_weighs_channels() -> None:
    torch.manual_seed(0)
    attention = ChannelAttention(4).eval()
    signal = torch.randn(2, 4, 400)
    weights = attention.weights(signal)
    assert weights.shape == (2, 4, 4)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4))
    by_hand = torch.stack([sum(weights[0, 1, other] * signal[0, other] for other in range(4))])
    attention.projection = nn.Identity()  # type: ignore[assignment]
    torch.testing.assert_close(attention(signal)[0, 1], by_hand[0])
