"""DeepSpeed ZeRO as an engine of the training loop.

The optimizer is torch's AdamW, handed to DeepSpeed, so no C++ operation is compiled at start and the arithmetic
is that of `neurolm.training.engine.TorchEngine`; ZeRO partitions it over workers.
"""

import math
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from torch import Tensor, nn

from neurolm.distributed import zero_slices
from neurolm.distributed.building import start_deepspeed
from neurolm.training.context import RunContext
from neurolm.training.deepspeed_config import DeepSpeedEngineConfig
from neurolm.training.engine import DivergedError
from neurolm.training.optimizer import OptimizerConfig, build_optimizer, learning_rate
from neurolm.training.stage import Stage
from neurolm.training.tensor_file import TensorStream
from neurolm.training.training_state import TrainingState, write_state


class DeepSpeedEngine:
    """One worker's part of a model trained by several."""

    def __init__(
        self,
        module: Stage,
        optimizer: OptimizerConfig,
        total_steps: int,
        context: RunContext,
        engine: DeepSpeedEngineConfig,
        num_micro_batches: int,
    ) -> None:
        self.module: nn.Module = module.to(context.device)
        exact = [parameter for part in module.exact_parts() for parameter in part.parameters()]
        values = [parameter.data for parameter in exact]
        self._config = optimizer
        self._total_steps = total_steps
        self._world_size = context.world_size
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch 2.13 renames collectives that DeepSpeed calls
            start_deepspeed()
            if engine.weights == "bfloat16":
                _round_shares(module, spared=exact)
            self._engine, self._optimizer, _, _ = deepspeed.initialize(
                model=self.module,
                optimizer=build_optimizer(self.module, optimizer, whole_shape),
                config=engine.dictionary(
                    optimizer,
                    num_micro_batches=num_micro_batches,
                    world_size=context.world_size,
                    num_parameters=num_trainable(self.module),
                ),
            )
        for parameter, value in zip(exact, values, strict=True):
            parameter.data = value  # DeepSpeed rounds all there are; learning nothing, these are in none of its buffers
        if engine.partitions_weights:
            module.settle = self._engine.empty_partition_cache
        self.step_count = 0

    def __call__(self, *arguments: Any) -> dict[str, Tensor]:
        """The stage's forward."""
        shares: dict[str, Tensor] = self._engine(*arguments)
        return shares

    def backward(self, loss: Tensor, is_last: bool) -> None:
        """Accumulate gradients; DeepSpeed averages over workers, the loop wants the sum."""
        self._engine.set_gradient_accumulation_boundary(is_last)
        self._engine.backward(loss * self._world_size, scale_wrt_gas=False)
        if not is_last:
            self._engine.step()

    def step(self) -> dict[str, float]:
        """Reduce, clip and update."""
        rate = learning_rate(self.step_count, self._total_steps, self._config)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._engine.step()
        norm = float(self._engine.get_global_grad_norm())
        if not math.isfinite(norm):  # then ZeRO has updated nothing and dropped the gradients
            raise DivergedError(f"step {self.step_count}: gradient norm is not finite")
        self.step_count += 1
        return {"gradient_norm": norm, "learning_rate": rate}

    def drop_gradients(self) -> None:
        """Drop them where ZeRO keeps them: its step does, without an update, when a gradient is not finite."""
        with _pretended_overflow(self._engine.optimizer):
            self._engine.step()

    def save(self, folder: Path) -> None:
        """Write this worker's part of the training state; every worker calls it."""
        write_state(
            folder,
            zero_slices.pieces(self._engine),
            step_count=self.step_count,
            rank=dist.get_rank(),
            world_size=self._world_size,
        )

    def load(self, folder: Path) -> None:
        """Continue from what any engine on any number of workers saved. Raises TrainingStateError."""
        state = TrainingState(folder)
        zero_slices.load(self._engine, state)
        self.step_count = state.step_count

    def weights(self) -> TensorStream:
        """All weights, one by one and whole on rank 0."""
        return zero_slices.gathered_weights(self._engine)


@contextmanager
def _pretended_overflow(optimizer: Any) -> Iterator[None]:
    """Make a ZeRO optimizer find that gradients are not finite: stages 1 and 2 look at them, 3 at their norm."""
    before = vars(optimizer).copy()
    optimizer.check_grad_overflow = True
    optimizer.has_overflow = lambda *arguments, **settings: True
    optimizer._get_norm_groups = lambda: [torch.tensor(float("inf"))]
    yield
    for name in ("check_grad_overflow", "has_overflow", "_get_norm_groups"):
        if name in before:
            setattr(optimizer, name, before[name])
        else:
            delattr(optimizer, name)


def num_trainable(module: nn.Module) -> int:
    """Elements of all trainable parameters."""
    return sum(whole_shape(parameter).numel() for parameter in module.parameters() if parameter.requires_grad)


def whole_shape(parameter: nn.Parameter) -> torch.Size:
    """The shape of a parameter, also of one that is partitioned."""
    return getattr(parameter, "ds_shape", parameter.shape)


def _round_shares(module: nn.Module, spared: Collection[nn.Parameter]) -> None:
    """Round this worker's shares of weights that were partitioned in fp32 as they were built; DeepSpeed leaves them."""
    kept = {id(parameter) for parameter in spared}
    for parameter in module.parameters():
        if id(parameter) not in kept and hasattr(parameter, "ds_tensor"):
            parameter.ds_tensor.data = parameter.ds_tensor.data.bfloat16()
            parameter.data = parameter.data.bfloat16()
