"""One of two processes that build and load a language model together, and what that takes of their memory."""

import gc
import json
import os
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file

from neurolm.models.language_model import LanguageModel, LanguageModelConfig
from neurolm.resident_memory import peak_resident_bytes, resident_bytes
from neurolm.training.checkpoint import load_weights
from neurolm.training.tensor_file import TensorFile

DEEP = LanguageModelConfig(hidden_size=256, num_layers=96, num_heads=4)
"""101 million parameters, 405 MB, of which its two tables of 51 MB are the largest."""
CODEBOOK = 64


def worker(rank: int, folder: Path) -> None:
    """Build and load under `partitioned`; leaves the peak over what was there before, and differences from the file."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"DS_ACCELERATOR": "cpu", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "PYTHONWARNINGS": "ignore"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    import deepspeed

    from neurolm.distributed import building
    from neurolm.training.deepspeed_config import DeepSpeedEngineConfig

    building.WHOLE_AT_ONCE = 2**20
    engine = DeepSpeedEngineConfig(zero_stage=3)
    small = LanguageModelConfig(hidden_size=16, num_layers=1, num_heads=2, context=8)
    with building.partitioned(engine):
        LanguageModel(small, 4)  # what is imported and allocated once and for all
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = resident_bytes()
    torch.manual_seed(0)
    with building.partitioned(engine):
        model = LanguageModel(DEEP, CODEBOOK)
        drawn = float(model.base.h[95].mlp.c_fc.weight.double().sum())
        load_weights(model, TensorFile(folder / "model.safetensors"))
    found = {"peak": peak_resident_bytes() - before, "drawn": drawn, "different": []}
    stored = load_file(folder / "model.safetensors")
    for name, parameter in model.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter]):
            if not torch.equal(parameter.data, stored[name]):
                found["different"].append(name)
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()
