from pathlib import Path

import pytest
import torch

from neurolm.config import UserError
from neurolm.models.language_model import LanguageModel, LanguageModelConfig
from neurolm.models.masks import eeg_text_mask, stair_step_mask
from tests.llama import write_llama

TINY = LanguageModelConfig(hidden_size=32, num_layers=2, num_heads=2, context=64, text_vocabulary_size=40)
SECONDS = torch.arange(4).repeat_interleave(5)

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


def models(folder: Path) -> dict[str, LanguageModel]:
    """A GPT-2, and a Llama whose queries share keys."""
    llama = LanguageModelConfig(name_or_path=str(write_llama(folder)))
    return {"gpt2": LanguageModel(TINY, codebook_size=8).eval(), "llama": LanguageModel(llama, codebook_size=8).eval()}


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("kind", ["causal", "stairs", "text", "own"])
@torch.inference_mode()
def test_states_are_those_of_plain_attention(family: str, kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = models(tmp_path)[family]
    mask = {
        "causal": None,
        "stairs": stair_step_mask(SECONDS),
        "text": eeg_text_mask(SECONDS, 6),
        "own": torch.stack([stair_step_mask(SECONDS), stair_step_mask(SECONDS.flip(0))]),
    }[kind]
    num_tokens = 26 if kind == "text" else 20
    positions = torch.arange(num_tokens)[None]
    embeddings = torch.randn(2, num_tokens, model.hidden_size)
    expected = model.hidden(embeddings, positions, mask)
    model.use_flex_attention()
    torch.testing.assert_close(model.hidden(embeddings, positions, mask), expected, rtol=1e-4, atol=1e-5)


def test_dropout_is_refused() -> None:
    model = LanguageModel(LanguageModelConfig(hidden_size=16, num_layers=1, num_heads=1, dropout=0.1), codebook_size=8)
    with pytest.raises(UserError, match=r"language_model.dropout = 0.1 to 0"):
        model.use_flex_attention()
