"""One thread, seeded weights, and the released code's recorded arrays."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neurolm.models.neural_tokenizer import NeuralTokenizer, NeuralTokenizerConfig
from neurolm.models.official import tokenizer_weights

Arrays = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def one_thread_and_seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def recorded(golden: Path) -> Callable[[str], Arrays]:
    """Arrays of one recorded file as tensors; integers as int64."""

    def read(name: str) -> Arrays:
        with np.load(golden / name) as file:
            arrays = {key: file[key] for key in file.files if file[key].dtype.kind in "ifb"}
        return {
            key: torch.as_tensor(array.astype("int64") if array.dtype.kind == "i" else array)
            for key, array in arrays.items()
        }

    return read


@pytest.fixture(scope="session")
def published(golden: Path) -> Callable[[str], Arrays]:
    """Weights of one recorded checkpoint, with the released names."""

    def read(name: str) -> Arrays:
        weights: Arrays = torch.load(golden / name, weights_only=True)["model"]
        return weights

    return read


@pytest.fixture
def released_tokenizer(published: Callable[[str], Arrays]) -> Callable[..., NeuralTokenizer]:
    """The released code's tiny neural tokenizer, as if windows were padded to ``pad_to`` tokens."""

    def build(pad_to: int | None, **settings: Any) -> NeuralTokenizer:
        config = NeuralTokenizerConfig(
            hidden_size=16,
            num_layers=2,
            num_heads=2,
            decoder_layers=2,
            codebook_size=64,
            codebook_dim=16,
            compat_pad_to=pad_to,
        )
        model = NeuralTokenizer(config, **settings)
        missing, unexpected = model.load_state_dict(tokenizer_weights(published("VQ_tiny.pt")), strict=False)
        assert (missing, unexpected) == (["quantizer.num_updates"], [])
        return model.eval()

    return build
