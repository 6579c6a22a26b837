from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from neurolm.config import UserError
from neurolm.models.language_model import LanguageModel, LanguageModelConfig
from tests.llama import write_llama, write_tokenizer

TINY: dict[str, Any] = {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "context": 32, "text_vocabulary_size": 40}


def hidden_of_changed_token(
    model: LanguageModel, changed: int, mask: torch.Tensor | None, position_ids: list[int]
) -> list[bool]:
    """Which positions notice that token ``changed`` is another one."""
    ids = torch.arange(len(position_ids))[None]
    other = ids.clone()
    other[0, changed] = 39
    positions = torch.tensor([position_ids])
    first, second = (model.hidden(model.embed_text(tokens), positions, mask) for tokens in (ids, other))
    return ((first - second).abs().amax(-1)[0] > 1e-6).tolist()


@pytest.mark.parametrize("position_ids", [[0, 1, 2, 3, 4], [0, 0, 1, 1, 2], [3, 3, 3, 0, 1]])
def test_without_a_mask_attention_is_causal_whatever_the_positions(position_ids: list[int]) -> None:
    model = LanguageModel(LanguageModelConfig(**TINY), codebook_size=8).eval()
    assert hidden_of_changed_token(model, 2, None, position_ids) == [False, False, True, True, True]


def test_a_mask_is_used_as_it_is() -> None:
    model = LanguageModel(LanguageModelConfig(**TINY | {"num_layers": 1}), codebook_size=8).eval()
    mask = torch.eye(5, dtype=torch.bool)
    mask[0, 2] = True
    assert hidden_of_changed_token(model, 2, mask, [0, 1, 2, 3, 4]) == [True, False, True, False, False]
    assert hidden_of_changed_token(model, 2, mask[None], [0, 1, 2, 3, 4]) == [True, False, True, False, False]


def test_causal_mask_and_none_agree_with_transformers() -> None:
    model = LanguageModel(LanguageModelConfig(**TINY), codebook_size=8).eval()
    ids, positions = torch.randint(40, (3, 12)), torch.arange(12)[None]
    expected = model.base(input_ids=ids, use_cache=False).last_hidden_state
    embeddings = model.embed_text(ids)
    torch.testing.assert_close(model.hidden(embeddings, positions), expected)
    causal = torch.ones(12, 12, dtype=torch.bool).tril()
    torch.testing.assert_close(model.hidden(embeddings, positions, causal), expected, atol=1e-5, rtol=1e-4)


def test_head_has_text_then_codes_and_is_not_tied() -> None:
    model = LanguageModel(LanguageModelConfig(**TINY), codebook_size=8)
    assert model.num_classes == 48 and model.logits(torch.randn(2, 3, 16)).shape == (2, 3, 48)
    table = model.base.get_input_embeddings().weight
    assert table.shape == (40, 16) and model.head.weight.data_ptr() != table.data_ptr()


def test_initialisation_from_scratch() -> None:
    model = LanguageModel(
        LanguageModelConfig(**TINY | {"hidden_size": 128, "embedding_init_std": 0.3}), codebook_size=8
    )
    weights = {name: float(weight.detach().std()) for name, weight in model.named_parameters() if weight.ndim == 2}
    assert weights["base.wte.weight"] == pytest.approx(0.3, rel=0.05)
    assert weights["base.wpe.weight"] == pytest.approx(0.3, rel=0.05)
    assert weights["head.weight"] == pytest.approx(0.02, rel=0.05)
    assert weights["base.h.0.mlp.c_fc.weight"] == pytest.approx(0.02, rel=0.05)
    assert weights["base.h.1.mlp.c_proj.weight"] == pytest.approx(0.02 / 2, rel=0.05)


def write_gpt2(folder: Path) -> GPT2LMHeadModel:
    """A small GPT-2 of 300 rows, with a tokenizer of its own."""
    model = GPT2LMHeadModel(GPT2Config(vocab_size=300, n_positions=32, n_embd=16, n_layer=2, n_head=2)).eval()
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return model


def test_a_pretrained_gpt2_keeps_its_rows(tmp_path: Path) -> None:
    pretrained = write_gpt2(tmp_path)
    config = LanguageModelConfig(name_or_path=str(tmp_path), text_vocabulary_size=310, activation="gelu_new")
    model = LanguageModel(config, codebook_size=8).eval()
    ids = torch.randint(300, (2, 7))
    hidden = model.hidden(model.embed_text(ids), torch.arange(7)[None])
    torch.testing.assert_close(model.logits(hidden)[..., :300], pretrained(ids).logits, atol=1e-5, rtol=1e-4)
    assert model.base.get_input_embeddings().weight.shape == (310, 16)
    assert model.logits(hidden).shape[-1] == 318


def test_the_exact_gelu_is_what_gpt2_gets_unless_asked(tmp_path: Path) -> None:
    write_gpt2(tmp_path)
    model = LanguageModel(LanguageModelConfig(name_or_path=str(tmp_path)), codebook_size=8)
    assert model.base.config.activation_function == "gelu" and model.base.config.resid_pdrop == 0
    assert type(model.base.h[0].mlp.act).__name__ == "GELUActivation"


def test_another_family_with_rotary_positions(tmp_path: Path) -> None:
    model = LanguageModel(LanguageModelConfig(name_or_path=str(write_llama(tmp_path))), codebook_size=8).eval()
    assert hidden_of_changed_token(model, 2, None, [0, 0, 1, 1, 2]) == [False, False, True, True, True]
    full = torch.ones(5, 5, dtype=torch.bool)
    assert hidden_of_changed_token(model, 2, full, [0, 0, 1, 1, 2]) == [True] * 5


def test_a_missing_or_too_large_model_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"language_model.name_or_path: cannot load '.*nowhere'"):
        LanguageModel(LanguageModelConfig(name_or_path=str(tmp_path / "nowhere")), codebook_size=8)
    write_gpt2(tmp_path)
    with pytest.raises(UserError, match="has 300 text ids, more than"):
        LanguageModel(LanguageModelConfig(name_or_path=str(tmp_path), text_vocabulary_size=300), codebook_size=8)
    LanguageModel(LanguageModelConfig(name_or_path=str(tmp_path), text_vocabulary_size=301), codebook_size=8)


def test_fewer_merges_make_a_smaller_table_that_its_folder_remembers() -> None:
    config = LanguageModelConfig(**TINY | {"text_vocabulary_size": None, "text_merges": 768})
    model = LanguageModel(config, codebook_size=8)
    assert model.text_vocabulary_size == 1088 and model.num_classes == 1096
    again = LanguageModel(model.standalone_config(), codebook_size=8, text_code=model.text_code)
    again.load_state_dict(model.state_dict())


def test_merges_are_not_for_pretrained_models() -> None:
    with pytest.raises(ValueError, match="text_merges"):
        LanguageModelConfig(name_or_path="gpt2", text_merges=768)
