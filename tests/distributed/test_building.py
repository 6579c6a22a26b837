"""A model that two processes build and load together is the same model."""

import json
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from safetensors.torch import save_file

from neurolm.models.language_model import LanguageModel
from tests.distributed import sharing

pytestmark = [pytest.mark.equivalence, pytest.mark.filterwarnings("default")]


def test_a_partitioned_model_draws_and_loads_the_same_values(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = LanguageModel(sharing.DEEP, sharing.CODEBOOK)
    drawn = float(model.base.h[95].mlp.c_fc.weight.double().sum())
    sizes = [parameter.numel() * 4 for parameter in model.parameters()]
    with torch.no_grad():
        tensors = {name: tensor.add(1).contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, tmp_path / "model.safetensors")
    del model, tensors
    torch.multiprocessing.spawn(sharing.worker, (tmp_path,), nprocs=2)
    for rank in (0, 1):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        print(f"rank {rank}: model {sum(sizes) / 1e6:.0f} MB, peak {found['peak'] / 1e6:.0f} MB")
        assert found["drawn"] == drawn
        assert found["different"] == []
