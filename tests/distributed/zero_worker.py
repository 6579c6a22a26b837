"""Workers that train `tests.odd_model` under one variant of DeepSpeed after another, without Ray; for tests."""

import functools
import json
import os
import socket
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing

from tests.odd_model import OPTIMIZER, TOTAL_STEPS, OddModel, batch

BF16 = {"bf16": {"enabled": True}}
FP32_GRADIENTS = {"data_types": {"grad_accum_dtype": "fp32"}}
ALL_BF16 = {"bf16": {"enabled": True, "bf16_master_weights_and_grads": True, "bf16_optimizer_states": True}}
OFFLOAD = {"zero_force_ds_cpu_optimizer": False, "zero_optimization": {"offload_optimizer": {"device": "cpu"}}}
CUT_SMALL = {"zero_optimization": {"sub_group_size": 100, "stage3_param_persistence_threshold": 0}}
PARAMETERS_TOO = {"zero_optimization": {"offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}}
VARIANTS: dict[str, tuple[int, dict[str, Any]]] = {
    "zero 1": (1, {}),
    "zero 2": (2, {}),
    "zero 3": (3, {}),
    "zero 3, small groups": (3, CUT_SMALL),
    "zero 1, offload": (1, OFFLOAD),
    "zero 2, offload": (2, OFFLOAD),
    "zero 3, offload": (3, OFFLOAD),
    "zero 3, parameters offloaded": (3, OFFLOAD | PARAMETERS_TOO),
    "zero 1, bf16": (1, BF16),
    "zero 1, bf16, fp32 gradients": (1, BF16 | FP32_GRADIENTS),
    "zero 2, bf16": (2, BF16),
    "zero 3, bf16": (3, BF16),
    "zero 3, bf16, small groups": (3, BF16 | CUT_SMALL),
    "zero 3, bf16, offload": (3, BF16 | OFFLOAD),
    "zero 1, all bf16": (1, ALL_BF16),
    "zero 2, all bf16": (2, ALL_BF16),
    "zero 3, all bf16": (3, ALL_BF16),
    "zero 3, all bf16, small groups": (3, ALL_BF16 | CUT_SMALL),
}
"""ZeRO stage and what is added to DeepSpeed's dictionary."""


@dataclass(frozen=True)
class Job:
    """Build an engine, perhaps load, train, save, train on; losses and weights go into the folder too."""

    variant: str
    folder: Path
    load: Path | None = None
    before: int = 0
    """Steps before the state is saved."""
    after: int = 0
    """Steps after it."""
    is_live: bool = False
    """Whether the engine has trained on something else before it loads."""


def run(jobs: Sequence[Job], world_size: int) -> None:
    """Run jobs one after another on several processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_work, (list(jobs), world_size, port), nprocs=world_size)  # type: ignore[no-untyped-call]


def _work(rank: int, jobs: list[Job], world_size: int, port: int) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        DS_ACCELERATOR="cpu",
    )
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo")
    import deepspeed

    initialize = deepspeed.initialize
    for job in jobs:
        stage, more = VARIANTS[job.variant]

        def with_more(*, config: dict[str, Any], more: dict[str, Any] = more, **others: Any) -> Any:
            zero = config["zero_optimization"] | more.get("zero_optimization", {})
            return initialize(config=config | more | {"zero_optimization": zero}, **others)

        deepspeed.initialize = with_more
        try:
            _do(job, stage, rank, world_size)
        except Exception as error:
            raise RuntimeError(f"{job}") from error
    dist.destroy_process_group()


def _do(job: Job, stage: int, rank: int, world_size: int) -> None:
    from neurolm.distributed.deepspeed import DeepSpeedEngine
    from neurolm.training.context import ProcessGroupContext
    from neurolm.training.engine import DeepSpeedEngineConfig
    from neurolm.training.tensor_file import TensorStream

    context = ProcessGroupContext(torch.device("cpu"))
    settings = DeepSpeedEngineConfig(zero_stage=stage)  # type: ignore[arg-type]
    model = OddModel(seed=0 if job.load is None else 1)
    engine = DeepSpeedEngine(model, OPTIMIZER, TOTAL_STEPS, context, settings, 1)
    train = functools.partial(_train, engine, context)
    if job.is_live:
        train(2)
    if job.load is not None:
        engine.load(job.load)
    train(job.before)
    job.folder.mkdir(parents=True, exist_ok=True)
    engine.save(job.folder)
    weights = engine.weights()
    if rank == 0:
        TensorStream(weights.specs, weights.tensors).write(job.folder / "weights.safetensors")
    else:
        weights.let_pass()
    losses = train(job.after)
    if rank == 0:
        (job.folder / "losses.json").write_text(json.dumps(losses))
    dist.barrier()
    engine._engine.destroy()


def _train(engine: Any, context: Any, num_steps: int) -> list[float]:
    losses = []
    for _ in range(num_steps):
        loss = engine(*batch(engine.step_count, context.rank, context.world_size))["loss"]
        engine.backward(loss, is_last=True)
        engine.step()
        losses.append(context.all_reduce_sum(loss.detach()).item())
    return losses
