"""Factors by channel and feature."""

import dataclasses

import pytest
import torch

from neurolm.models.channel_gain import ChannelGain
from neurolm.models.neurolm import NeuroLM
from tests.models.test_official import MODEL


def test_at_the_start_nothing_is_changed() -> None:
    features = torch.randn(2, 3, 4)
    assert torch.equal(ChannelGain(4, rate=60.0)(features, torch.tensor([5, 7, 5])), features)


def test_factors_belong_to_channel_and_feature() -> None:
    gain = ChannelGain(2, rate=10.0)
    with torch.no_grad():
        gain.gain.weight[7] = torch.tensor([0.1, -0.3])
    found = gain(torch.ones(1, 3, 2), torch.tensor([[5, 7, 5]]))
    torch.testing.assert_close(found, torch.tensor([[[1.0, 1.0], [2.0, -2.0], [1.0, 1.0]]]))


def test_the_rate_is_how_much_faster_they_are_learnt() -> None:
    moved = []
    for rate in (1.0, 60.0):
        gain = ChannelGain(1, rate)
        optimizer = torch.optim.AdamW(gain.parameters(), lr=1e-3)
        gain(torch.ones(1, 1, 1), torch.tensor([3])).sum().backward()
        optimizer.step()
        moved.append(1 - gain(torch.ones(1, 1, 1), torch.tensor([3])).item())
    assert moved == pytest.approx([1e-3, 60e-3], rel=1e-4)


def test_a_model_without_them_has_no_such_weights_and_one_with_them_starts_alike() -> None:
    torch.manual_seed(0)
    plain = NeuroLM(MODEL)
    torch.manual_seed(0)
    gained = NeuroLM(dataclasses.replace(MODEL, channel_gain=60.0))
    assert set(gained.state_dict()) - set(plain.state_dict()) == {"channel_gain.gain.weight"}
    features = torch.randn(2, 6, MODEL.tokenizer.hidden_size)
    channels = torch.tensor([3, 4, 5, 3, 4, 5])
    torch.testing.assert_close(gained.embed_eeg(features, channels), plain.embed_eeg(features, channels))
    with torch.no_grad():
        gained.channel_gain.gain.weight[4] += 0.01  # type: ignore[union-attr]
    is_other = (gained.embed_eeg(features, channels) != plain.embed_eeg(features, channels)).any(-1)
    assert is_other.tolist() == [[False, True, False, False, True, False]] * 2
