"""Kept tokens are what the frozen encoder would compute, and only their own tokenizer may be served by them."""

import dataclasses

import numpy as np
import pytest
import torch

from neurolm.config import override
from neurolm.models.neural_tokenizer import NeuralTokenizer
from neurolm.sequences import WindowError, collate, eeg_tokens
from neurolm.training.encoding import EncoderError, encode_windows, token_origin
from tests.tiny import TOKENIZER, mixed_windows, stored_window, tiny_neurolm, tiny_tokenizer


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_windows_of_any_shapes_keep_the_tokens_of_one_pass(batch_size: int) -> None:
    model = tiny_neurolm()
    windows = encode_windows(model.tokenizer, mixed_windows(), "float32", batch_size)
    kept = collate(windows, np.arange(7), text=None, tasks=None)
    raw = collate(mixed_windows(), np.arange(7), text=None, tasks=None)
    assert kept.counts == raw.counts
    for one, other in zip(kept.groups, raw.groups, strict=True):
        assert one.tokens is not None and one.signal.shape == (len(other), 0, 200)
        expected = eeg_tokens(model, other)
        difference = one.tokens.features - expected.features
        assert difference.norm() < 1e-6 * expected.features.norm()
        assert torch.equal(one.tokens.codes, expected.codes)
        for name in ("channel_index", "time_index", "position"):
            assert torch.equal(getattr(one, name), getattr(other, name))


def test_bfloat16_is_the_float32_rounded() -> None:
    windows = mixed_windows()[:2]
    tokenizer = tiny_tokenizer()
    groups = [
        collate(encode_windows(tokenizer, windows, dtype), np.arange(2), text=None, tasks=None).groups[0].tokens
        for dtype in ("float32", "bfloat16")
    ]
    exact, rounded = groups
    assert exact is not None and rounded is not None
    assert rounded.features.dtype == torch.bfloat16
    assert torch.equal(rounded.features, exact.features.bfloat16())
    assert torch.equal(rounded.codes, exact.codes)  # codes are of the features before they are rounded


def test_windows_of_broken_seconds_are_refused() -> None:
    with pytest.raises(WindowError, match="recording r3 of workload"):
        encode_windows(tiny_tokenizer(), [stored_window(2, 300, seed=3)], "float32")
    (window,) = encode_windows(tiny_tokenizer(), [stored_window(2, 400, seed=3)], "float32")
    assert window.tokens is not None
    torn = dataclasses.replace(window, tokens=dataclasses.replace(window.tokens, codes=window.tokens.codes[:3]))
    with pytest.raises(WindowError, match="recording r3 of workload"):
        collate([torn], np.arange(1), text=None, tasks=None)


def test_codes_are_counted_in_16_bits() -> None:
    with torch.device("meta"):
        large = NeuralTokenizer(dataclasses.replace(TOKENIZER, codebook_size=65537))
    with pytest.raises(EncoderError, match="codebook_size 65537"):
        encode_windows(large, [], "float32")


def test_a_tokenizer_has_the_same_origin_alone_and_inside_a_neurolm() -> None:
    tokenizer, model = tiny_tokenizer(), tiny_neurolm()
    assert len(tokenizer.decoders) and not len(model.tokenizer.decoders)
    origin = token_origin(tokenizer, "data", "float32")
    assert token_origin(model.tokenizer, "data", "float32") == origin
    assert (origin.data, origin.dtype, origin.compat_pad_to) == ("data", "float32", None)


@pytest.mark.parametrize("name", ["encoder.norm.bias", "latent_head.0.weight", "quantizer.codebook"])
def test_another_weight_is_another_origin(name: str) -> None:
    tokenizer = tiny_tokenizer()
    before = token_origin(tokenizer, "data", "float32")
    tokenizer.state_dict()[name].view(-1)[0] += 1e-3
    assert token_origin(tokenizer, "data", "float32").tokenizer != before.tokenizer


def test_decoders_and_the_codebooks_history_make_no_tokens() -> None:
    tokenizer = tiny_tokenizer()
    before = token_origin(tokenizer, "data", "float32")
    for name, tensor in tokenizer.state_dict().items():
        if name.startswith("decoders.") or name == "quantizer.cluster_size":
            tensor += 1
    assert token_origin(tokenizer, "data", "float32") == before


def test_settings_are_part_of_the_origin_and_padding_is_named() -> None:
    tokenizer = tiny_tokenizer()
    before = token_origin(tokenizer, "data", "float32")
    weights = tokenizer.state_dict()
    for change, is_same in (({"compat_pad_to": 276}, True), ({"distance_dtype": "autocast"}, False)):
        other = NeuralTokenizer(override(TOKENIZER, change))
        other.load_state_dict(weights)
        origin = token_origin(other, "data", "float32")
        assert (origin.tokenizer == before.tokenizer) is is_same
        assert origin != before
