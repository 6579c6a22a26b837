"""The real sizes of NeuroLM-B with weights made by the recipe of the golden folder: none are stored."""

import zlib

import numpy as np
import pytest
import torch
from torch import Tensor

from neurolm.models.neural_tokenizer_config import NeuralTokenizerConfig
from neurolm.models.neurolm import NeuroLM, NeuroLMConfig
from neurolm.models.official import Layout, neurolm_layout, tokenizer_layout
from neurolm.sequences import eeg_features
from neurolm.text.bpe import gpt2_bpe
from neurolm.training.instruct import InstructLossConfig, InstructStage
from neurolm.training.pretrain import PretrainLossConfig, PretrainStage
from neurolm.training.tokenizer import TokenizerLossConfig, TokenizerStage
from tests.golden.conftest import Parity
from tests.golden.recorded import Golden, load_classifier, load_tokenizer, one_more, valid
from tests.golden.test_instruction import logits_of
from tests.golden.test_pretraining import text_crops
from tests.tiny import total_counts

pytestmark = [pytest.mark.golden, pytest.mark.slow]
SET = "13_full_B_recipe"


@pytest.fixture
def arrays(released: Golden) -> dict[str, Tensor]:
    if not (released.folder / f"{SET}.npz").is_file():
        pytest.skip(f"{released.folder} has no {SET}.npz: nothing of full size to compare with")
    return released.arrays(f"{SET}.npz")


def recipe(layout: Layout) -> dict[str, Tensor]:
    """Weights as the golden README says, version 1; those of embed_avg are not needed."""
    return {name: _weight(name, shape) for name, shape in layout.shapes.items() if not name.endswith("embed_avg")}


def _weight(name: str, shape: tuple[int, ...]) -> Tensor:
    if name.endswith("initted"):
        return torch.ones(shape)
    key = name.replace("tokenizer.", "VQ.encoder.", 1) if name.startswith("tokenizer.") else name
    values = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(int(np.prod(shape))).reshape(shape)
    if name.endswith("cluster_size"):
        values = np.abs(values)
    elif name.endswith("quantize.embedding.weight"):
        values /= np.linalg.norm(values, axis=1, keepdims=True)
    elif name.endswith(".bias"):
        values *= 0.1
    elif values.ndim == 1:
        values = 1 + 0.1 * values
    elif name.endswith(("wte.weight", "wpe.weight", "pos_embed.weight", "time_embed.weight")):
        values *= 0.3
    elif name.endswith("lm_head.weight"):
        values *= 2 / np.sqrt(shape[1])
    else:
        values /= np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32))


@torch.no_grad()
def test_full_size_equals_the_released_code(released: Golden, parity: Parity, arrays: dict[str, Tensor]) -> None:
    num_tokens = released.inputs["num_tokens"]
    config = NeuralTokenizerConfig(compat_pad_to=released.pad_to)
    official = recipe(tokenizer_layout(config))
    tokenizer = load_tokenizer(config, official)
    stage = TokenizerStage(tokenizer, official["wte.weight"], TokenizerLossConfig()).eval()
    load_classifier(stage, official)
    batch = released.batch(one_more(released.arrays("02_vq_forward.npz")["text_tokens"]))
    shares = stage(batch, total_counts([batch]))
    names = {"commitment": "quant", "frequency": "rec_freq", "raw": "rec_raw"}
    for ours, theirs in (names | {"domain_eeg": "domain_eeg", "domain_text": "domain_text"}).items():
        parity.close(SET, f"vq_{theirs}", shares[ours], arrays[f"vq_{theirs}"])
    parity.close(SET, "vq_total_loss", sum(shares[name] for name in names), arrays["vq_total_loss"])
    del stage, official

    model_config = NeuroLMConfig(tokenizer=config, text_start="batch")
    layout = neurolm_layout(model_config)
    model = NeuroLM(model_config).eval()
    model.tokenizer.load_state_dict(tokenizer.state_dict())
    del tokenizer
    _, unexpected = model.load_state_dict(layout.to_ours(recipe(layout)), strict=False)
    assert not unexpected

    found: dict[str, list[Tensor]] = {}
    for group in batch.groups:
        features = eeg_features(model, group)
        hidden = model.hidden(
            model.embed_eeg(features, group.channel_index),
            group.time_indices,
            group.time_index <= group.time_index[:, None],
        )
        logits = model.logits(hidden)[0]
        for name, value in {
            "encoder_features_first16": features[0, :, :16],
            "encoder_features_norm": features[0].norm(dim=-1),
            "codebook_indices": model.codes(features)[0],
            "z_first16": model.tokenizer.latents(features)[0, :, :16],
            "lm_logits_first8": logits[:, :8],
            "lm_logits_eeg_first8": logits[:, gpt2_bpe().num_rows : gpt2_bpe().num_rows + 8],
            "lm_logits_lse": logits.logsumexp(-1),
        }.items():
            found.setdefault(name, []).append(value)
    for name, values in found.items():
        compare = parity.same if name == "codebook_indices" else parity.close
        compare(SET, name, torch.cat(values), valid(arrays[name], num_tokens))

    crops = released.batch(text_crops(released))
    shares = PretrainStage(model, PretrainLossConfig())(crops, total_counts([crops]))
    parity.close(SET, "lm_loss", shares["eeg_loss"], arrays["lm_loss"])
    parity.close(SET, "lm_accuracy", shares["eeg_accuracy"], arrays["lm_accuracy"])
    parity.close(SET, "text_loss", shares["text_loss"], arrays["text_loss"])

    asked = released.batch(asked=True)
    shares = InstructStage(model, released.tasks, InstructLossConfig())(asked, total_counts([asked]))
    parity.close(SET, "instr_loss", shares["answer_loss"], arrays["instr_loss"])
    parity.close(SET, "instr_accuracy", shares["answer_accuracy"], arrays["instr_accuracy"])
    texts = released.arrays("08_instruction_forward.npz")["X_text"]
    for window, group in enumerate(asked.groups):
        logits = logits_of(model, group, texts[window], asked.text_start("batch"))
        kept = [*range(len(group.time_index)), *range(released.pad_to, released.pad_to + texts.shape[1])]
        parity.close(SET, "instr_logits_lse", logits.logsumexp(-1), arrays["instr_logits_lse"][window][kept])
        parity.close(SET, "instr_logits_first8", logits[:, :8], arrays["instr_logits_first8"][window][kept])
