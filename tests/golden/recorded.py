"""A golden folder as the tests read it: arrays, windows and models, with every size taken from its files."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neurolm.config import override
from neurolm.eeg.channels import channel_index
from neurolm.eeg.shards import StoredWindow
from neurolm.models.neural_tokenizer import NeuralTokenizer
from neurolm.models.neural_tokenizer_config import NeuralTokenizerConfig
from neurolm.models.neurolm import NeuroLM
from neurolm.models.official import Layout, neurolm_layout, tokenizer_layout
from neurolm.models.official_sizes import neurolm_config, tokenizer_config
from neurolm.sequences import Batch, collate
from neurolm.text.bpe import gpt2_bpe
from neurolm.text.instructions import TASKS, EncodedTask, encode_task
from neurolm.training.official_files import OfficialFile, read_official
from neurolm.training.pretrain import PretrainLossConfig, PretrainStage
from neurolm.training.tokenizer import TokenizerLossConfig, TokenizerStage

Arrays = dict[str, Any]


class Golden:
    """Recorded inputs, outputs and weights of the released code."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def arrays(self, name: str) -> Arrays:
        """One recorded file; numbers as tensors, integers as int64."""
        with np.load(self.folder / name) as file:
            found = dict(file)
        return {name: _tensor(array) if array.dtype.kind in "ifb" else array for name, array in found.items()}

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    @cached_property
    def sizes(self) -> list[str]:
        """Names of the tiny language models."""
        return sorted(path.name[len("NeuroLM-") : -len("_tiny.pt")] for path in self.folder.glob("NeuroLM-*_tiny.pt"))

    @cached_property
    def inputs(self) -> Arrays:
        return self.arrays("01_dataset.npz")

    @cached_property
    def pad_to(self) -> int:
        """Tokens that the recorded windows were padded to."""
        return int(self.inputs["X"].shape[1])

    @cached_property
    def data_sets(self) -> list[str]:
        """What each window stands for in instruction tuning."""
        names = self.arrays("08_instruction_forward.npz")
        return [name.split("_")[2] for name in names if name.startswith(f"{self.sizes[0]}_loss_")]

    @cached_property
    def tasks(self) -> dict[str, EncodedTask]:
        return {name: encode_task(TASKS[name], gpt2_bpe()) for name in self.data_sets}

    def windows(self) -> list[StoredWindow]:
        """The recorded signals in µV, labelled as in instruction tuning."""
        letters = [name.removeprefix("ch_names_") for name in self.inputs if name.startswith("ch_names_")]
        answers = self.arrays("09_generate.npz")
        windows = []
        for letter, data_set in zip(letters, self.data_sets, strict=True):
            channels = [channel_index(str(name)) for name in self.inputs[f"ch_names_{letter}"]]
            windows.append(
                StoredWindow(
                    signal=self.inputs[f"raw_{letter}_uV"].numpy().astype(np.float32),
                    channel_indices=np.array(channels, dtype=np.int16),
                    data_set=data_set,
                    subject="s",
                    recording=letter,
                    start_s=0.0,
                    label=self.tasks[data_set].labels[int(answers[f"{data_set}_label"])],
                )
            )
        return windows

    def batch(self, text: Tensor | None = None, asked: bool = False) -> Batch:
        """All windows, perhaps with crops of text or with their questions."""
        windows = self.windows()
        crops = None if text is None else text.numpy()
        return collate(windows, np.arange(len(windows)), text=crops, tasks=self.tasks if asked else None)

    @cached_property
    def vq(self) -> OfficialFile:
        return read_official(self.folder / "VQ_tiny.pt")

    def tokenizer_config(self, pad_to: int | None = None) -> NeuralTokenizerConfig:
        return override(tokenizer_config(self.vq.checkpoint), {"compat_pad_to": pad_to or self.pad_to})

    def tokenizer(self, pad_to: int | None = None) -> tuple[NeuralTokenizer, Layout]:
        """The tiny tokenizer, as if windows were padded to ``pad_to`` tokens, and where its tensors come from."""
        config = self.tokenizer_config(pad_to)
        return load_tokenizer(config, self.vq.model), tokenizer_layout(config)

    def tokenizer_stage(self) -> tuple[TokenizerStage, Layout]:
        """Stage 1 with the recorded classifier and text table."""
        model, layout = self.tokenizer()
        stage = TokenizerStage(model, self.vq.model["wte.weight"], TokenizerLossConfig())
        load_classifier(stage, self.vq.model)
        return stage, layout

    def neurolm(self, size: str, **settings: Any) -> tuple[NeuroLM, Layout]:
        """A tiny NeuroLM around the tiny tokenizer."""
        file = read_official(self.folder / f"NeuroLM-{size}_tiny.pt")
        config = override(neurolm_config(file.checkpoint, self.tokenizer_config()), settings)
        model, layout = NeuroLM(config), neurolm_layout(config)
        model.tokenizer.load_state_dict(self.tokenizer()[0].state_dict())
        missing, unexpected = model.load_state_dict(layout.to_ours(file.model), strict=False)
        assert not unexpected and all(name.startswith("tokenizer.") for name in missing)
        return model.eval(), layout

    def pretrain_stage(self, size: str) -> tuple[PretrainStage, Layout]:
        model, layout = self.neurolm(size)
        return PretrainStage(model, PretrainLossConfig()), layout


def load_tokenizer(config: NeuralTokenizerConfig, official: dict[str, Tensor]) -> NeuralTokenizer:
    """A tokenizer with the given weights."""
    model = NeuralTokenizer(config)
    missing, unexpected = model.load_state_dict(tokenizer_layout(config).to_ours(official), strict=False)
    assert (missing, unexpected) == (["quantizer.num_updates"], [])
    return model.eval()


def load_classifier(stage: TokenizerStage, official: dict[str, Tensor]) -> None:
    """Give a stage 1 the recorded classifier."""
    head = "domain_classifier."
    weights = {name.removeprefix(head): one for name, one in official.items() if name.startswith(head)}
    assert stage.classifier is not None
    stage.classifier.layers.load_state_dict(weights)


def valid(arrays: Tensor, num_tokens: Tensor) -> Tensor:
    """The rows of real tokens of all windows, padding left out [tokens ...]."""
    return torch.cat([array[:number] for array, number in zip(arrays, num_tokens.tolist(), strict=True)])


def one_more(ids: Tensor) -> Tensor:
    """Crops as ours, with one id after those that are read."""
    return torch.cat([ids, torch.zeros_like(ids[:, :1])], dim=1)


def _tensor(array: np.ndarray) -> Tensor:
    return torch.as_tensor(array.astype("int64") if array.dtype.kind == "i" else array)
