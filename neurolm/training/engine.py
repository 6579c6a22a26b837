"""An engine owns a stage's parameters and optimizer; the loop only knows this protocol.

Gradients of `backward` are *summed* over micro-batches and over workers: stage losses are already divided by the global
number of targets, so the sum is the gradient of the global mean however the batch was cut.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from neurolm.config import UserError, config
from neurolm.training.deepspeed_config import DeepSpeedEngineConfig
from neurolm.training.optimizer import OptimizerConfig, build_optimizer, learning_rate


class DivergedError(UserError):
    """A loss or a gradient is not finite; raised before the optimizer step, so the weights are still good."""


@config
class TorchEngineConfig:
    """Plain PyTorch in one process."""

    kind: Literal["torch"] = "torch"

    @property
    def partitions_weights(self) -> bool:
        """Never: the process has all of them."""
        return False


EngineConfig = Annotated[TorchEngineConfig | DeepSpeedEngineConfig, Field(discriminator="kind")]
"""Which engine trains: torch (one process) or deepspeed (Ray Train workers)."""


class Engine(Protocol):
    """Forward, backward, step, save, load."""

    module: nn.Module
    step_count: int

    def __call__(self, *arguments: Any) -> dict[str, Tensor]:
        """The stage's forward: this worker's share of the losses."""
        ...

    def backward(self, loss: Tensor, is_last: bool) -> None:
        """Add a micro-batch's gradients; ``is_last`` marks the last micro-batch of the step."""
        ...

    def step(self) -> dict[str, float]:
        """Clip, update, zero the gradients; returns gradient_norm and learning_rate. Raises DivergedError."""
        ...

    def save(self, folder: Path) -> None:
        """Write this worker's part of the training state."""
        ...

    def load(self, folder: Path) -> None:
        """Read back what `save` wrote."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """All weights, complete on rank 0; every worker must call it."""
        ...


class TorchEngine:
    """The reference engine: one process, fp32."""

    def __init__(self, module: nn.Module, optimizer: OptimizerConfig, total_steps: int, device: torch.device) -> None:
        self.module = module.to(device)
        self.step_count = 0
        self._config = optimizer
        self._total_steps = total_steps
        self._optimizer = build_optimizer(self.module, optimizer)

    def __call__(self, *arguments: Any) -> dict[str, Tensor]:
        """The stage's forward."""
        shares: dict[str, Tensor] = self.module(*arguments)
        return shares

    def backward(self, loss: Tensor, is_last: bool) -> None:
        """Accumulate gradients."""
        loss.backward()

    def step(self) -> dict[str, float]:
        """One AdamW update at the schedule's rate."""
        rate = learning_rate(self.step_count, self._total_steps, self._config)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        parameters = [p for p in self.module.parameters() if p.grad is not None]
        norm = gradient_norm(parameters)
        if not torch.isfinite(norm):
            raise DivergedError(
                f"step {self.step_count}: gradient norm is {norm.item()}; lower optimizer.learning_rate"
            )
        if self._config.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self._config.clip_norm, norm.float())
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step_count += 1
        return {"gradient_norm": norm.item(), "learning_rate": rate}

    def save(self, folder: Path) -> None:
        """Weights, buffers, moments and the step count in one file."""
        state = {
            "module": self.module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "step_count": self.step_count,
        }
        torch.save(state, folder / "torch_engine.pt")

    def load(self, folder: Path) -> None:
        """Restore exactly what `save` wrote."""
        state = torch.load(folder / "torch_engine.pt", map_location="cpu", weights_only=True)
        self.module.load_state_dict(state["module"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step_count = state["step_count"]

    def weights(self) -> dict[str, Tensor]:
        """The module's own state."""
        return self.module.state_dict()


def gradient_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Norm of all gradients together, added up in double precision as DeepSpeed does.

    In single precision torch's sum over a vocabulary's table was wrong by 3e-5, and clipping by it with it.
    """
    norms = [torch.linalg.vector_norm(one.grad, dtype=torch.float64) for one in parameters if one.grad is not None]
    return torch.linalg.vector_norm(torch.stack(norms))
