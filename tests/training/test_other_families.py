"""Stages 2 and 3, evaluation of answers and model folders around a Llama, in full and with adapters."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from neurolm.config import build
from neurolm.text.bpe import gpt2_bpe
from neurolm.text.instructions import TASKS
from neurolm.tracking import read_curves
from neurolm.training.assembly import load_neurolm
from neurolm.training.checkpoint import ModelFolderError, load_model
from neurolm.training.runs import STAGES
from neurolm.training.tasks import encoded_tasks
from neurolm.training.worker import train_locally
from tests.llama import write_llama
from tests.tiny import write_tiny_store

torch.set_num_threads(1)
LORA = {"rank": 4, "alpha": 8.0}


def train(stage: str, out: Path, store: Path, **settings: Any) -> dict[str, list[tuple[int, float]]]:
    """Run a stage to its end; its curves."""
    text = out / "text.txt"
    text.write_text("Is this EEG segment of high workload? " * 40)
    values: dict[str, Any] = {
        "stage": stage,
        "out": out,
        "data": {"store": store, "sets": {"workload": {"layout": "workload"}}},
        "epochs": 3,
        "batch": {"size": 4, "text_size": 2, "text_length": 8},
        "optimizer": {"learning_rate": 1e-2},
        "corpus": {"path": text},
        "tracking": {"enabled": False},
    }
    train_locally(build(STAGES[stage], values | settings, source="test"), show_progress=False)
    return read_curves(out / stage / "tracking.jsonl")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, and a tokenizer whose text table is the Llama's, so that its text is in the Llama's ids."""
    out = tmp_path_factory.mktemp("prepared")
    write_tiny_store(out / "store", 8)
    table = write_llama(out / "llama")
    model = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "decoder_layers": 1}
    train(
        "tokenizer", out, out / "store", model=model | {"codebook_size": 16, "codebook_dim": 8}, text_table=str(table)
    )
    return out


@pytest.mark.parametrize("lora", [None, LORA])
def test_a_model_of_another_family_goes_through_all_stages(
    lora: dict[str, Any] | None, prepared: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(prepared, out)
    language_model = {"name_or_path": str(out / "llama"), "lora": lora}
    losses = train("pretrain", out, out / "store", language_model=language_model, spatial_embedding_init_std=0.02)
    shutil.rmtree(out / "llama")  # from here on, nobody may ask for it
    answers = train("instruct", out, out / "store", tasks=["workload"], lora=lora)
    for curve in (losses["eeg_loss"], losses["text_loss"], answers["answer_loss"]):
        values = [value for _, value in curve]
        assert all(map(math.isfinite, values)) and values[-1] < values[0] - 0.1
    model, values = load_neurolm(out / "instruct" / "model")
    assert model.text_code.num_ids == 300 and values["model"]["language_model"]["name_or_path"] is None
    assert not [name for name in model.state_dict() if "lora" in name or "separator" in name]
    task = encoded_tasks(["workload"], {}, model.text_code)["workload"]
    assert model.text_code.decode(task.prompt_ids[1:]) == TASKS["workload"].prompt
    # What pre-training froze is as it came; what it learnt went into the weights that it exports.
    before, after = (load_model(out / stage / "model", "neurolm").tensors for stage in ("pretrain", "instruct"))
    name = "language_model.base.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(before[name], after[name])
    norm = "language_model.base.norm.weight"
    assert torch.equal(before[norm], torch.ones(16)) == (lora is not None)


def test_the_text_code_is_sealed_with_the_folder(prepared: Path, tmp_path: Path) -> None:
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    train("pretrain", tmp_path, tmp_path / "store", language_model={"name_or_path": str(tmp_path / "llama")})
    folder = tmp_path / "pretrain" / "model"
    sums = json.loads((folder / "manifest.json").read_text())["sha256"]
    assert set(sums) == {"model.safetensors", "config.yaml", "text_code.json"}
    code = (folder / "text_code.json").read_text()
    (folder / "text_code.json").write_text(code.replace('"num_ids": 300', '"num_ids": 301'))
    with pytest.raises(ModelFolderError, match=r"text_code.json: missing or changed since it was written"):
        load_neurolm(folder)
    # A file that the manifest does not name is not read.
    del sums["text_code.json"]
    (folder / "manifest.json").write_text(json.dumps({"kind": "neurolm", "sha256": sums}))
    assert load_model(folder, "neurolm").files == {}


def test_a_model_in_gpt2s_code_needs_no_file_for_it(prepared: Path, tmp_path: Path) -> None:
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    sizes = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "context": 64}
    train("pretrain", tmp_path, tmp_path / "store", language_model=sizes)
    assert not (tmp_path / "pretrain" / "model" / "text_code.json").exists()
    model, values = load_neurolm(tmp_path / "pretrain" / "model")
    assert model.text_code is gpt2_bpe() and values["model"]["language_model"]["text_vocabulary_size"] == 50304
