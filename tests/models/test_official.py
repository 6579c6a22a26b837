import json
from pathlib import Path

import pytest
import torch

from neurolm.models.alignment import DomainClassifier
from neurolm.models.language_model import LanguageModelConfig
from neurolm.models.neural_tokenizer import NeuralTokenizer, NeuralTokenizerConfig
from neurolm.models.neurolm import NeuroLM, NeuroLMConfig
from neurolm.models.official import classifier_weights, neurolm_weights, tokenizer_weights

SIZES = {"B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1600, 48, 25)}


def listed(path: Path) -> dict[str, torch.Tensor]:
    """Tensors without data in the names and shapes of a published file."""
    return {name: torch.empty(shape, device="meta") for name, shape, _ in json.loads(path.read_text())}


def shapes(weights: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}


@pytest.mark.golden
def test_every_tensor_of_the_published_tokenizer_has_its_place(golden: Path) -> None:
    official = listed(golden / "keys_VQ.json")
    with torch.device("meta"):
        ours = shapes(NeuralTokenizer(NeuralTokenizerConfig()).state_dict())
        classifier = shapes(DomainClassifier(768).state_dict())
    del ours["quantizer.num_updates"]
    assert shapes(tokenizer_weights(official)) == ours
    assert shapes(classifier_weights(official)) == classifier


@pytest.mark.golden
@pytest.mark.parametrize("size", SIZES)
def test_every_tensor_of_the_published_models_has_its_place(golden: Path, size: str) -> None:
    width, layers, heads = SIZES[size]
    language_model = LanguageModelConfig(hidden_size=width, num_layers=layers, num_heads=heads)
    with torch.device("meta"):
        ours = shapes(NeuroLM(NeuroLMConfig(language_model=language_model)).state_dict())
    from_vq = ("tokenizer.quantizer.", "tokenizer.latent_head.")
    ours = {name: shape for name, shape in ours.items() if not name.startswith(from_vq)}
    assert shapes(neurolm_weights(listed(golden / f"keys_NeuroLM-{size}.json"))) == ours
