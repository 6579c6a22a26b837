"""Memory and time of saving, loading and exporting a training state in one process; prints JSON.

    python tests/benchmarks/state_memory.py --width 768 --layers 12 --heads 12 --engine torch

NeuroLM with its frozen encoder, as pre-training has it. Of every step is measured what the peak of the resident set is
above the resident set before it: that is what the step needs beside the state that is there already. ``load_fresh``
starts without Adam's moments and ends with them, so that it needs at least their size; ``export_checkpoint`` and
``load_model`` start from nothing.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from neurolm.config import as_dict
from neurolm.models.language_model import LanguageModelConfig
from neurolm.models.neural_tokenizer_config import NeuralTokenizerConfig
from neurolm.models.neurolm import NeuroLM, NeuroLMConfig
from neurolm.resident_memory import peak_resident_bytes, resident_bytes
from neurolm.training.assembly import load_neurolm
from neurolm.training.engine import DeepSpeedEngineConfig, TorchEngine
from neurolm.training.model_export import ModelDescription, export, export_checkpoint
from neurolm.training.optimizer import OptimizerConfig, start_moments
from neurolm.training.pretrain import PretrainLossConfig, PretrainStage

OPTIMIZER = OptimizerConfig(learning_rate=1e-4)
ALL_BF16 = {"bf16": {"enabled": True, "bf16_master_weights_and_grads": True, "bf16_optimizer_states": True}}


def measured(do: Callable[[], object]) -> dict[str, float]:
    """Bytes above what is there, at the peak and at the end, and seconds."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before, started = resident_bytes(), time.perf_counter()
    do()
    seconds = time.perf_counter() - started
    return {
        "peak_bytes": peak_resident_bytes() - before,
        "kept_bytes": resident_bytes() - before,
        "seconds": round(seconds, 2),
    }


def build(options: argparse.Namespace) -> PretrainStage:
    """A stage whose encoder and language model have the same size."""
    sizes = {"hidden_size": options.width, "num_layers": options.layers, "num_heads": options.heads}
    config = NeuroLMConfig(
        tokenizer=NeuralTokenizerConfig(**sizes), language_model=LanguageModelConfig(**sizes, dropout=0.0)
    )
    return PretrainStage(NeuroLM(config), PretrainLossConfig())


def deepspeed_engine(stage: PretrainStage) -> Any:
    """ZeRO-3 with parameters, masters and moments in bf16, alone."""
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    os.environ["DS_ACCELERATOR"] = "cpu"
    warnings.simplefilter("ignore")
    torch.distributed.init_process_group("gloo")
    import deepspeed

    from neurolm.distributed.deepspeed import DeepSpeedEngine
    from neurolm.training.context import ProcessGroupContext

    initialize = deepspeed.initialize
    deepspeed.initialize = lambda config, **others: initialize(config=config | ALL_BF16, **others)
    context = ProcessGroupContext(torch.device("cpu"))
    engine = DeepSpeedEngine(stage, OPTIMIZER, 10, context, DeepSpeedEngineConfig(zero_stage=3), 1)
    return engine, engine._engine.optimizer.optimizer.state, engine._engine.optimizer.fp32_partitioned_groups_flat


def torch_engine(stage: PretrainStage) -> Any:
    """Plain torch in fp32."""
    engine = TorchEngine(stage, OPTIMIZER, 10, torch.device("cpu"))
    return engine, engine._optimizer.state, [one for one in stage.parameters() if one.requires_grad]


def main() -> None:
    """Build, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--heads", type=int, required=True)
    parser.add_argument("--engine", choices=("torch", "deepspeed"), default="torch")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="neurolm-state-"))
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir()
    try:
        stage = build(options)
        model = ModelDescription("neurolm", {"model": as_dict(stage.model.config)}, {}, "model.", None)
        make = torch_engine if options.engine == "torch" else deepspeed_engine
        engine, states, weights = make(stage)
        for weight in weights:
            start_moments(states[weight], weight, weight.dtype, 3)
        model.save(checkpoint)
        found: dict[str, Any] = {"save": measured(lambda: engine.save(checkpoint))}
        found["load"] = measured(lambda: engine.load(checkpoint))
        found["export"] = measured(lambda: export(folder / "exported", model, engine.weights()))
        states.clear()
        found["load_fresh"] = measured(lambda: engine.load(checkpoint))
        parameters = sum(getattr(one, "ds_numel", one.numel()) for one in stage.parameters())
        engine = states = weights = stage = None  # let go of
        found["export_checkpoint"] = measured(lambda: export_checkpoint(checkpoint, folder / "offline"))
        found["load_model"] = measured(lambda: load_neurolm(folder / "offline"))
        sizes = {
            "state": sum(path.stat().st_size for path in checkpoint.iterdir()),
            "model": (folder / "offline" / "model.safetensors").stat().st_size,
        }
    finally:
        shutil.rmtree(folder)
    print(json.dumps(vars(options) | {"parameters": parameters, "bytes": sizes} | found))


if __name__ == "__main__":
    main()
