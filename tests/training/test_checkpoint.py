from pathlib import Path

import pytest
import torch

from neurolm.training.checkpoint import ModelFolderError, load_model, model_digest, save_model

VALUES = {"model": {"hidden_size": 16, "name": "Ångström"}, "tasks": ["workload"], "clip": None}


def tensors() -> dict[str, torch.Tensor]:
    shared = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    return {
        "a": shared,
        "tied": shared,
        "transposed": shared.T,
        "odd": torch.tensor([float("nan"), float("inf"), -0.0, 1e-42]),
        "half": shared.to(torch.bfloat16),
        "whole": torch.arange(3),
        "flag": torch.tensor(True),
    }


def test_a_model_comes_back_bit_by_bit(tmp_path: Path) -> None:
    save_model(tmp_path / "model", "tokenizer", VALUES, tensors())
    saved = load_model(tmp_path / "model", "tokenizer")
    assert (saved.kind, saved.values) == ("tokenizer", VALUES)
    assert saved.tensors.keys() == tensors().keys()
    for name, tensor in tensors().items():
        found = saved.tensors[name]
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
        raw = [one.contiguous().reshape(-1).view(torch.uint8) for one in (found, tensor)]
        assert torch.equal(*raw), name
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "config.yaml",
        "manifest.json",
        "model",
        "model.safetensors",
    ]


def test_a_folder_is_replaced_and_its_digest_follows_weights_and_settings(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_model(folder, "neurolm", VALUES, tensors())
    first = model_digest(folder)
    save_model(folder, "neurolm", VALUES, tensors())
    assert model_digest(folder) == first
    save_model(folder, "neurolm", VALUES | {"tasks": []}, tensors())
    assert model_digest(folder) != first
    save_model(folder, "neurolm", VALUES, {"a": torch.zeros(1)})
    assert model_digest(folder) != first
    assert list(load_model(folder, "neurolm").tensors) == ["a"]


@pytest.mark.parametrize("name", ["model.safetensors", "config.yaml"])
def test_a_changed_byte_or_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    save_model(tmp_path, "tokenizer", VALUES, tensors())
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelFolderError, match=rf"{name}: missing or changed since it was written"):
        load_model(tmp_path, "tokenizer")
    path.unlink()
    with pytest.raises(ModelFolderError, match=rf"{name}: missing or changed"):
        load_model(tmp_path, "tokenizer")


def test_another_kind_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    save_model(tmp_path / "model", "tokenizer", VALUES, tensors())
    with pytest.raises(ModelFolderError, match="model: expected a neurolm, found a tokenizer"):
        load_model(tmp_path / "model", "neurolm")
    with pytest.raises(ModelFolderError, match=r"no model here .*train this stage first"):
        load_model(tmp_path, "tokenizer")
