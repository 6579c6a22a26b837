"""A checkpoint becomes the model folder that the run itself would have written, on a machine that has nothing else."""

import shutil
from pathlib import Path

import torch

from neurolm.config import as_dict
from neurolm.models.language_model import LanguageModelConfig
from neurolm.models.lora import LoraConfig
from neurolm.models.neurolm import NeuroLM, NeuroLMConfig
from neurolm.training.assembly import load_neurolm
from neurolm.training.checkpoint import load_model
from neurolm.training.engine import TorchEngine
from neurolm.training.instruct import InstructLossConfig, InstructStage
from neurolm.training.model_export import TEXT_CODE, ModelDescription, export, export_checkpoint
from tests.llama import write_llama
from tests.odd_model import OPTIMIZER, TOTAL_STEPS
from tests.tiny import TOKENIZER, tiny_tokenizer

LORA = LoraConfig(rank=3)


def adapted_stage(folder: Path) -> InstructStage:
    """NeuroLM around a llama, its adapters and the row of [SEP] away from their start."""
    settings = LanguageModelConfig(name_or_path=str(write_llama(folder)), lora=LORA)
    model = NeuroLM(NeuroLMConfig(tokenizer=TOKENIZER, language_model=settings))
    model.tokenizer.load_state_dict(tiny_tokenizer().state_dict())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name or "separator" in name:
                parameter.normal_(std=0.3)
    return InstructStage(model, {}, InstructLossConfig())


def test_adapters_are_merged_without_the_model_that_they_sit_on(tmp_path: Path) -> None:
    stage = adapted_stage(tmp_path / "llama")
    values = {"model": as_dict(stage.model.standalone_config()), "trained": {"seed": 0}}
    files = {TEXT_CODE: stage.model.text_code.as_json()}
    description = ModelDescription("neurolm", values, files, "model.", as_dict(LORA))
    engine = TorchEngine(stage, OPTIMIZER, TOTAL_STEPS, torch.device("cpu"))
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    engine.save(checkpoint)
    description.save(checkpoint)
    export(tmp_path / "of the engine", description, engine.weights())
    shutil.rmtree(tmp_path / "llama")
    export_checkpoint(checkpoint, tmp_path / "of the checkpoint")
    for name in ("model.safetensors", "config.yaml", "manifest.json", TEXT_CODE):
        one, other = (tmp_path / folder / name for folder in ("of the engine", "of the checkpoint"))
        assert one.read_bytes() == other.read_bytes()
    expected = dict(stage.model.merged(stage.model.state_dict().items()))
    found = load_model(tmp_path / "of the checkpoint", "neurolm").tensors
    assert found.keys() == expected.keys() and not any("lora" in name for name in found)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    model, _ = load_neurolm(tmp_path / "of the checkpoint")
    assert model.language_model.separator is None
