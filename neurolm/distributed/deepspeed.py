"""DeepSpeed ZeRO as an engine of the training loop.

The optimizer is torch's AdamW, handed to DeepSpeed, so no C++ operation is compiled at start and the arithmetic
is that of `neurolm.training.engine.TorchEngine`; ZeRO partitions it over workers.
"""

import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import deepspeed
import torch
from torch import Tensor, nn

from neurolm.distributed.building import start_deepspeed
from neurolm.training.context import RunContext
from neurolm.training.deepspeed_config import DeepSpeedEngineConfig
from neurolm.training.engine import DivergedError
from neurolm.training.optimizer import OptimizerConfig, build_optimizer, learning_rate
from neurolm.training.stage import Stage


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
        if not torch.isfinite(torch.tensor(norm)):
            raise DivergedError(f"step {self.step_count}: gradient norm is {norm}; lower optimizer.learning_rate")
        self.step_count += 1
        return {"gradient_norm": norm, "learning_rate": rate}

    def save(self, folder: Path) -> None:
        """This worker's shard of the state, in DeepSpeed's layout; every worker calls it."""
        self._engine.save_checkpoint(str(folder), tag="state", client_state={"step_count": self.step_count})

    def load(self, folder: Path) -> None:
        """Read back this worker's shard.

        DeepSpeed unpickles what it loads, so only a run's own storage may ever be passed here.
        """
        path, client_state = self._engine.load_checkpoint(str(folder), tag="state")
        assert path is not None, f"{folder} holds no DeepSpeed state"
        self.step_count = int(client_state["step_count"])

    def weights(self) -> dict[str, Tensor]:
        """All weights on rank 0, gathered tensor by tensor under ZeRO-3."""
        complete: dict[str, Tensor] = {}
        parameters = dict(self.module.named_parameters(remove_duplicate=False))
        for name, tensor in self.module.state_dict(keep_vars=True).items():
            if name in parameters and hasattr(parameters[name], "ds_id"):
                with deepspeed.zero.GatheredParameters([parameters[name]]):
                    complete[name] = parameters[name].detach().cpu().clone()
            else:
                complete[name] = tensor.detach().cpu().clone()
        return complete


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
