"""Names, shapes and groups: real-size checkpoints against the presets, optimizer groups, the channel vocabulary."""

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from neurolm.config import override
from neurolm.eeg.channels import CHANNELS
from neurolm.models.neurolm import NeuroLMConfig
from neurolm.models.official import Layout, neurolm_layout, tokenizer_layout
from neurolm.training.optimizer import OptimizerConfig, build_optimizer
from neurolm.training.runs import PretrainRun, TokenizerRun, load_run
from tests.golden.conftest import Parity
from tests.golden.recorded import Golden

pytestmark = pytest.mark.golden
CONFIGS = Path(__file__).parents[2] / "ray_jobs" / "configs"


def preset(size: str) -> NeuroLMConfig:
    """The model of a preset, with GPT-2's sizes in the place of its name."""
    tokenizer, pretrain = (load_run(CONFIGS / size.lower() / f"{stage}.yaml") for stage in ("tokenizer", "pretrain"))
    assert isinstance(tokenizer, TokenizerRun) and isinstance(pretrain, PretrainRun)
    language_model = override(pretrain.language_model, {"name_or_path": None})
    return NeuroLMConfig(tokenizer=tokenizer.model, language_model=language_model)


def listed(keys: list[Any]) -> dict[str, tuple[int, ...]]:
    assert {dtype for _, _, dtype in keys} == {"torch.float32"}
    return {name: tuple(shape) for name, shape, _ in keys}


def test_presets_have_the_tensors_of_the_published_files(released: Golden, parity: Parity) -> None:
    for path in sorted(released.folder.glob("keys_NeuroLM-*.json")):
        config = preset(path.stem.removeprefix("keys_NeuroLM-"))
        parity.same("keys", path.stem, neurolm_layout(config).shapes, listed(released.json(path.name)))
        parity.same("keys", "keys_VQ", tokenizer_layout(config.tokenizer).shapes, listed(released.json("keys_VQ.json")))


def grouped(layout: Layout, stage: nn.Module, named: dict[str, nn.Parameter]) -> dict[str, set[str]]:
    """What our optimizer does with every tensor of a published file, under the released names."""
    owners = {id(parameter): name for name, parameter in named.items()}
    decayed, plain = (
        {owners[id(one)] for one in group["params"]}
        for group in build_optimizer(stage, OptimizerConfig(learning_rate=1.0)).param_groups
    )
    return {"decay": decayed, "no_decay": plain, "not_optimised": layout.shapes.keys() - decayed - plain}


def official_names(layout: Layout, model: nn.Module) -> dict[str, nn.Parameter]:
    return {layout.places[name]: one for name, one in model.named_parameters() if name in layout.places}


def test_optimizer_groups(released: Golden, parity: Parity) -> None:
    expected = {
        model: {group: set(names) for group, names in groups.items()}
        for model, groups in released.json("optimizer_groups.json").items()
    }
    stage, layout = released.tokenizer_stage()
    assert stage.classifier is not None
    classifier = {f"domain_classifier.{name}": one for name, one in stage.classifier.layers.named_parameters()}
    ours = grouped(layout, stage, official_names(layout, stage.tokenizer) | classifier)
    ours["not_optimised"] -= {"VQ.quantize.cluster_size", "VQ.quantize.embedding.initted"}  # buffers there too
    parity.same("optimizer_groups", "VQ_Align", ours, expected["VQ_Align"])
    listed_names = set().union(*expected["NeuroLM"].values())
    for size in released.sizes:
        pretrain, layout = released.pretrain_stage(size)
        if layout.shapes.keys() == listed_names:  # the file lists one of the sizes
            ours = grouped(layout, pretrain, official_names(layout, pretrain.model))
            parity.same("optimizer_groups", f"NeuroLM-{size}", ours, expected["NeuroLM"])


def test_channel_vocabulary(released: Golden, parity: Parity) -> None:
    recorded = released.json("channel_vocab.json")
    parity.same("channel_vocab", "names", [[index, name] for index, name in enumerate(CHANNELS)], recorded)
