"""Sizes, names and layouts without any file; the published ones are compared in tests/golden."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurolm.config import override
from neurolm.models.language_model import LanguageModelConfig
from neurolm.models.neural_tokenizer import NeuralTokenizer
from neurolm.models.neural_tokenizer_config import NeuralTokenizerConfig
from neurolm.models.neurolm import NeuroLM, NeuroLMConfig
from neurolm.models.official import PREFIX, OfficialError, neurolm_layout, tokenizer_layout
from neurolm.models.official_sizes import neurolm_args, neurolm_config, tokenizer_args, tokenizer_config

TOKENIZER = NeuralTokenizerConfig(
    hidden_size=8, num_layers=2, num_heads=2, decoder_layers=1, codebook_size=6, codebook_dim=4
)
MODEL = NeuroLMConfig(
    tokenizer=TOKENIZER,
    language_model=LanguageModelConfig(hidden_size=12, num_layers=2, num_heads=3, text_vocabulary_size=20, context=9),
)
sizes = st.integers(1, 3)


def same_bits(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].dtype == one.dtype and torch.equal(found[name], one) for name, one in expected.items()
    )


def zeros(layout: Any, prefix: str = "") -> dict[str, torch.Tensor]:
    return {prefix + name: torch.zeros(shape) for name, shape in layout.shapes.items()}


@settings(deadline=None, max_examples=15)
@given(sizes, sizes, sizes, st.integers(2, 9), st.integers(1, 5), st.sampled_from(["", PREFIX]))
def test_tokenizers_of_any_size_come_back(
    heads: int, layers: int, depth: int, codes: int, dim: int, prefix: str
) -> None:
    config = NeuralTokenizerConfig(
        hidden_size=4 * heads,
        num_layers=layers,
        num_heads=heads,
        decoder_layers=depth,
        codebook_size=codes,
        codebook_dim=dim,
    )
    layout, model = tokenizer_layout(config), NeuralTokenizer(config)
    ours = {name: torch.randn(one.shape).to(one.dtype) for name, one in model.state_dict().items()}
    del ours["quantizer.num_updates"]
    official = layout.to_official(ours)
    assert same_bits(layout.to_ours(official), ours)
    whole = official | {name: torch.zeros(layout.shapes[name]) for name in layout.extra}
    layout.check(whole, "here")
    named = {prefix + name: one for name, one in whole.items()}
    assert tokenizer_config({"model": named, **tokenizer_args(config)}) == config


@settings(deadline=None, max_examples=10)
@given(sizes, sizes, sizes, st.integers(2, 9))
def test_models_of_any_size_come_back(heads: int, layers: int, text_heads: int, codes: int) -> None:
    tokenizer = NeuralTokenizerConfig(hidden_size=4 * heads, num_layers=layers, num_heads=heads, codebook_size=codes)
    language_model = LanguageModelConfig(
        hidden_size=4 * text_heads, num_layers=layers, num_heads=text_heads, text_vocabulary_size=20, context=9
    )
    config = NeuroLMConfig(tokenizer=tokenizer, language_model=language_model)
    layout = neurolm_layout(config)
    ours = {name: one for name, one in NeuroLM(config).state_dict().items() if name in layout.places}
    official = layout.to_official(ours)
    assert not layout.extra
    assert same_bits(layout.to_ours(official), ours)
    layout.check(official, "here")
    about = {"model": official, **neurolm_args(language_model)}
    assert neurolm_config(about, tokenizer) == config
    assert neurolm_config(about, num_heads=heads) == config  # code length and decoders as published


def test_gpt2_is_stored_transposed_and_the_start_mark_as_a_number() -> None:
    layout = neurolm_layout(MODEL)
    assert layout.shapes["GPT2.transformer.h.1.attn.c_attn.weight"] == (36, 12)
    official = zeros(layout)
    official["GPT2.transformer.h.0.mlp.c_fc.weight"][5, 3] = 1.0
    assert layout.to_ours(official)["language_model.base.h.0.mlp.c_fc.weight"][3, 5] == 1
    tokenizer = tokenizer_layout(TOKENIZER)
    ours = tokenizer.to_ours(zeros(tokenizer) | {"VQ.quantize.embedding.initted": torch.ones(1)})
    assert ours["quantizer.initialised"].dtype == torch.bool and bool(ours["quantizer.initialised"])


def test_every_wrong_tensor_is_named_with_its_shapes() -> None:
    layout = tokenizer_layout(TOKENIZER)
    found = zeros(layout) | {"VQ.surplus": torch.zeros(3), "VQ.encoder.fc_norm.bias": torch.zeros(2, 8)}
    del found["VQ.encoder.blocks.1.mlp.c_fc.weight"], found["wte.weight"]
    with pytest.raises(OfficialError) as caught:
        layout.check(found, "VQ.pt")
    said = str(caught.value)
    assert said.startswith("VQ.pt: 4 tensors")
    for part in (
        "missing VQ.encoder.blocks.1.mlp.c_fc.weight: expected (32, 8)",
        "missing wte.weight: expected (50257, 8)",
        "unknown VQ.surplus: found (3,)",
        "misshapen VQ.encoder.fc_norm.bias: found (2, 8), expected (8,)",
    ):
        assert part in said


def test_a_damaged_codebook_is_named_not_believed() -> None:
    layout = tokenizer_layout(TOKENIZER)
    for name in ("embedding.weight", "cluster_size", "embedding.cluster_size", "embedding.embed_avg"):
        found = zeros(layout)
        found[f"VQ.quantize.{name}"] = found[f"VQ.quantize.{name}"][:-1]
        config = tokenizer_config({"model": found, **tokenizer_args(TOKENIZER)})
        with pytest.raises(OfficialError, match=rf"1 tensors .*\n  misshapen VQ.quantize.{name}: found \(5"):
            tokenizer_layout(config).check(found, "VQ.pt")


def test_heads_that_no_file_states_are_not_guessed() -> None:
    about = {"model": zeros(neurolm_layout(MODEL)), **neurolm_args(MODEL.language_model)}
    with pytest.raises(OfficialError, match=r"heads its tokenizer of width 8 has; give the tokenizer .*num_heads"):
        neurolm_config(about)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm": "token"}, "norm is 'token', expected 'window'"),
        ({"latent_norm": "running", "amplitude": "log"}, "latent_norm is 'running'.*amplitude is 'log'"),
        ({"reconstruct": "raw"}, "reconstruct is 'raw', expected 'both'"),
    ],
)
def test_tokenizers_that_the_layout_cannot_hold(changes: dict[str, str], message: str) -> None:
    with pytest.raises(OfficialError, match=f"cannot hold this NeuralTokenizer: {message}"):
        tokenizer_layout(override(TOKENIZER, changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"language_model.activation": "gelu_new"},
        {"language_model.name_or_path": "/some/llama"},
        {"language_model.text_merges": 768},
        {"tokenizer.patch_input": "covariance"},
        {"feature_norm": "first_batch"},
        {"channel_gain": 2.0},
    ],
)
def test_language_models_that_the_layout_cannot_hold(changes: dict[str, str]) -> None:
    with pytest.raises(OfficialError, match=rf"cannot hold this \w+: {next(iter(changes)).split('.')[-1]}"):
        neurolm_layout(override(MODEL, changes))
