"""Adapters: what learns, that they start as nothing, and that they merge into plain weights."""

import builtins
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from neurolm.config import UserError
from neurolm.models.language_model import LanguageModel, LanguageModelConfig
from neurolm.models.lora import LoraConfig
from neurolm.models.neurolm import NeuroLM, NeuroLMConfig
from tests.llama import write_llama
from tests.tiny import TOKENIZER

RANK = 3
LORA = LoraConfig(rank=RANK, alpha=6.0)


@pytest.fixture(params=["llama", "gpt2"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "llama":
        return write_llama(tmp_path)
    torch.manual_seed(0)
    sizes = {"vocab_size": 50257, "n_positions": 64, "n_embd": 16, "n_layer": 2, "n_head": 2}
    GPT2LMHeadModel(GPT2Config(initializer_range=0.2, **sizes)).save_pretrained(tmp_path)
    return tmp_path


def build(folder: Path, lora: LoraConfig | None) -> NeuroLM:
    torch.manual_seed(1)
    settings = LanguageModelConfig(name_or_path=str(folder), lora=lora)
    return NeuroLM(NeuroLMConfig(tokenizer=TOKENIZER, language_model=settings))


def logits(model: NeuroLM) -> torch.Tensor:
    """Scores after two EEG tokens, [SEP] and two ids of text."""
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(1, 2, 16, generator=generator)
    eeg = model.embed_eeg(features, torch.tensor([[3, 4]]))
    text = model.embed_text(torch.tensor([[model.text_code.sep, 5, 7]]))
    return model.logits(model.hidden(torch.cat([eeg, text], 1), torch.tensor([[0, 0, 1, 2, 3]])))


def train(model: NeuroLM, steps: int = 5) -> None:
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        (-logits(model).log_softmax(-1)[..., model.first_code_class + 1].sum()).backward()
        optimizer.step()
    model.eval()


def test_only_adapters_and_what_is_new_learn(folder: Path) -> None:
    model = build(folder, LORA)
    base = model.language_model.base
    linear = [one for one in base.modules() if hasattr(one, "base_layer")]
    assert len(linear) == 2 * (4 if base.config.model_type == "gpt2" else 7)
    expected = sum(RANK * (one.in_features + one.out_features) for one in linear)
    learning = {name: one.numel() for name, one in model.named_parameters() if one.requires_grad}
    assert sum(number for name, number in learning.items() if ".lora_" in name) == expected
    others = {name: number for name, number in learning.items() if ".lora_" not in name}
    assert others == {
        "language_model.head.weight": model.num_classes * 16,
        "language_model.separator.weight": 16,
        "pos_embed.weight": 256 * 16,
    }


@torch.no_grad()
def test_before_the_first_step_nothing_is_different(folder: Path) -> None:
    plain, adapted = build(folder, None).eval(), build(folder, LORA).eval()
    adapted.pos_embed.load_state_dict(plain.pos_embed.state_dict())  # adapters draw random numbers before it
    torch.testing.assert_close(logits(adapted), logits(plain), atol=1e-6, rtol=0)


def test_training_changes_nothing_that_is_frozen_and_everything_else(folder: Path) -> None:
    model = build(folder, LORA)
    before = {name: one.clone() for name, one in model.state_dict().items()}
    train(model)
    learnt = {name for name, one in model.named_parameters() if one.requires_grad}
    changed = {name for name, one in model.state_dict().items() if not torch.equal(one, before[name])}
    assert changed == learnt


@torch.no_grad()
def test_merged_weights_give_the_adapted_models_scores(folder: Path) -> None:
    model = build(folder, LORA)
    start = logits(model.eval())
    with torch.enable_grad():
        train(model)
    adapted = logits(model)
    weights = dict(model.merged(reversed(model.state_dict().items())))  # in whatever order they come
    settings = model.standalone_config()
    assert settings.language_model.lora is None and settings.language_model.name_or_path is None
    merged = NeuroLM(settings, model.text_code).eval()
    merged.load_state_dict(weights)  # every name matches: nothing of peft is left
    torch.testing.assert_close(logits(merged), adapted, atol=1e-5, rtol=0)
    assert (adapted - start).abs().max() > 0.1
    table = merged.language_model.base.get_input_embeddings().weight
    sep = model.text_code.sep
    old, separator = model.language_model.base.get_input_embeddings().weight, model.language_model.separator
    assert separator is not None and torch.equal(table[sep], separator.weight[0])
    assert torch.equal(table[:sep], old[:sep]) and not torch.equal(table[sep], old[sep])


def test_only_the_named_layers_get_adapters(tmp_path: Path) -> None:
    model = build(write_llama(tmp_path), LoraConfig(rank=2, target_modules=("q_proj", "v_proj")))
    names = [name for name, _ in model.named_parameters() if ".lora_" in name]
    assert {name.partition(".lora_")[0].rpartition(".")[2] for name in names} == {"q_proj", "v_proj"}
    with pytest.raises(
        UserError, match=r"lora.target_modules: .*c_attn.*linear layers are down_proj, gate_proj, k_proj"
    ):
        build(tmp_path, LoraConfig(target_modules=("c_attn",)))


def test_a_missing_peft_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_llama(tmp_path)
    real = builtins.__import__

    def absent(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "peft":
            raise ImportError("No module named 'peft'")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(UserError, match=r"lora needs the package peft .*pip install 'neurolm\[lora\]'"):
        LanguageModel(LanguageModelConfig(name_or_path=str(tmp_path), lora=LORA), codebook_size=8)
