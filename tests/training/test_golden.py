"""From µV to losses: what the released code computes on the same two windows with the same weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neurolm.eeg.channels import channel_index
from neurolm.eeg.shards import StoredWindow
from neurolm.models.alignment import DomainClassifier
from neurolm.models.language_model import LanguageModelConfig
from neurolm.models.neural_tokenizer import NeuralTokenizer, NeuralTokenizerConfig
from neurolm.models.neurolm import NeuroLM, NeuroLMConfig
from neurolm.models.official import classifier_weights, neurolm_weights, tokenizer_weights
from neurolm.sequences import Batch, collate
from neurolm.training.instruct import InstructLossConfig, InstructStage
from neurolm.training.pretrain import PretrainLossConfig, PretrainStage
from neurolm.training.stage import Stage
from neurolm.training.tokenizer import TokenizerLossConfig, TokenizerStage
from tests.tiny import tasks, total_counts

pytestmark = pytest.mark.golden

TOKENIZER = NeuralTokenizerConfig(
    hidden_size=16, num_layers=2, num_heads=2, decoder_layers=2, codebook_size=64, codebook_dim=16, compat_pad_to=32
)


class Recorded:
    """The recorded arrays and weights."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def arrays(self, name: str) -> dict[str, Any]:
        with np.load(self.folder / name) as file:
            return dict(file)

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = torch.load(self.folder / name, weights_only=True)["model"]
        return found

    def window(self, letter: str, data_set: str, label: str | None) -> StoredWindow:
        inputs = self.arrays("01_dataset.npz")
        channels = np.array([channel_index(str(name)) for name in inputs[f"ch_names_{letter}"]], dtype=np.int16)
        signal = inputs[f"raw_{letter}_uV"].astype(np.float32)
        return StoredWindow(signal, channels, data_set, "s", letter, 0.0, label)

    def windows(self) -> list[StoredWindow]:
        return [self.window("A", "workload", "arithmetic"), self.window("B", "hmc", "N3")]

    def neurolm(self, size: str) -> NeuroLM:
        width = {"B": 16, "L": 8}[size]
        language_model = LanguageModelConfig(hidden_size=width, num_layers=2, num_heads=2)
        model = NeuroLM(NeuroLMConfig(tokenizer=TOKENIZER, language_model=language_model))
        tokenizer = NeuralTokenizer(TOKENIZER)
        tokenizer.load_state_dict(tokenizer_weights(self.weights("VQ_tiny.pt")), strict=False)
        model.load_tokenizer(tokenizer.state_dict())
        model.load_state_dict(neurolm_weights(self.weights(f"NeuroLM-{size}_tiny.pt")), strict=False)
        return model


@pytest.fixture
def recorded(golden: Path) -> Recorded:
    return Recorded(golden)


@torch.no_grad()
def shares_of(stage: Stage, batch: Batch) -> dict[str, float]:
    return {name: float(value) for name, value in stage(batch, total_counts([batch])).items()}


def test_tokenizer_stage_equals_the_released_code(recorded: Recorded) -> None:
    expected, official = recorded.arrays("02_vq_forward.npz"), recorded.weights("VQ_tiny.pt")
    tokenizer = NeuralTokenizer(TOKENIZER)
    tokenizer.load_state_dict(tokenizer_weights(official), strict=False)
    stage = TokenizerStage(tokenizer, official["_orig_mod.wte.weight"], TokenizerLossConfig()).eval()
    assert isinstance(stage.classifier, DomainClassifier)
    stage.classifier.load_state_dict(classifier_weights(official))
    read = expected["text_tokens"]  # what the classifier saw; a crop of ours has one id more
    text = np.concatenate([read, np.zeros((2, 1), dtype=np.int64)], axis=1)
    shares = shares_of(stage, collate(recorded.windows(), np.arange(2), text=text, tasks=None))
    names = {
        "commitment": "quant_loss",
        "frequency": "rec_freq_loss",
        "raw": "rec_raw_loss",
        "domain_eeg": "domain_loss_eeg",
        "domain_text": "domain_loss_text",
    }
    assert {name: shares[name] for name in names} == pytest.approx(
        {name: float(expected[theirs]) for name, theirs in names.items()}, rel=1e-5
    )


@pytest.mark.parametrize("size", ["B", "L"])
def test_pretrain_stage_equals_the_released_code(recorded: Recorded, size: str) -> None:
    expected, texts = recorded.arrays("05_pretrain_forward.npz"), recorded.arrays("06_text_forward.npz")
    text = np.concatenate([texts["x_text"], texts["y_text"][:, -1:]], axis=1)
    stage = PretrainStage(recorded.neurolm(size), PretrainLossConfig())
    shares = shares_of(stage, collate(recorded.windows(), np.arange(2), text=text, tasks=None))
    assert shares["eeg_loss"] == pytest.approx(float(expected[f"{size}_loss"]), rel=1e-5)
    assert shares["eeg_accuracy"] == pytest.approx(float(expected[f"{size}_accuracy"]))
    if size == "B":
        assert shares["text_loss"] == pytest.approx(float(texts["B_loss"]), rel=1e-5)


@pytest.mark.parametrize("size", ["B", "L"])
def test_instruct_stage_equals_the_released_code_for_windows_alone(recorded: Recorded, size: str) -> None:
    """In its batches the released code starts text after the longest window, so windows are compared alone."""
    expected = recorded.arrays("08_instruction_forward.npz")
    stage = InstructStage(recorded.neurolm(size), tasks(), InstructLossConfig())
    for window in recorded.windows():
        shares = shares_of(stage, collate([window], np.arange(1), text=None, tasks=tasks()))
        theirs = float(expected[f"{size}_loss_{window.data_set}_alone"])
        assert shares["answer_loss"] == pytest.approx(theirs, rel=1e-5)
