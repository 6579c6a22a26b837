"""An engine owns a stage's parameters and optimizer; the loop only knows this protocol.

Gradients of `backward` are *summed* over micro-batches and over workers: stage losses are already divided by the global
number of targets, so the sum is the gradient of the global mean however the batch was cut.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from neurolm.config import UserError, config
from neurolm.training.deepspeed_config import DeepSpeedEngineConfig
from neurolm.training.optimizer import OptimizerConfig, build_optimizer, learning_rate, start_moments
from neurolm.training.pieces import Piece, moments_of, named_tensors
from neurolm.training.tensor_file import TensorStream
from neurolm.training.training_state import TrainingState, write_state


class DivergedError(UserError):
    """A loss, a gradient or a weight is not finite; raised before the optimizer step of the batch that it names."""


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
        """Clip, update, zero the gradients; returns gradient_norm and learning_rate.

        Raises:
            DivergedError: the norm is not finite; the gradients are dropped, no weight is changed, no step is counted.
        """
        ...

    def drop_gradients(self) -> None:
        """Forget what the step's `backward` calls have accumulated, the last of them included."""
        ...

    def save(self, folder: Path) -> None:
        """Write this worker's part of the training state (see `neurolm.training.training_state`)."""
        ...

    def load(self, folder: Path) -> None:
        """Continue from what the workers of any engine saved. Raises TrainingStateError."""
        ...

    def weights(self) -> TensorStream:
        """All weights, one by one and whole on rank 0; every worker must go through the stream."""
        ...


class TorchEngine:
    """The reference engine: one process, fp32."""

    def __init__(self, module: nn.Module, optimizer: OptimizerConfig, total_steps: int, device: torch.device) -> None:
        self.module = module.to(device)
        for parameter in module.parameters():
            parameter.data = parameter.data.contiguous()  # a training state is of flat runs of elements
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
            self.drop_gradients()
            raise DivergedError(f"step {self.step_count}: gradient norm is {norm.item()}")
        if self._config.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self._config.clip_norm, norm.float())
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step_count += 1
        return {"gradient_norm": norm.item(), "learning_rate": rate}

    def drop_gradients(self) -> None:
        """Zero them."""
        self._optimizer.zero_grad(set_to_none=True)

    def save(self, folder: Path) -> None:
        """Write weights, buffers, moments and the step count."""
        write_state(folder, self._pieces(), step_count=self.step_count, rank=0, world_size=1)

    def load(self, folder: Path) -> None:
        """Continue from what any engine saved. Raises TrainingStateError."""
        state = TrainingState(folder)
        for name, _, tensor in named_tensors(self.module):
            if tensor.requires_grad:
                start_moments(self._optimizer.state[tensor], tensor, tensor.dtype, state.adam_steps.get(name, 0))
        state.read(self._pieces())
        self.step_count = state.step_count

    def weights(self) -> TensorStream:
        """The module's own state."""
        return TensorStream.of(self.module.state_dict())

    def _pieces(self) -> Iterator[Piece]:
        for name, aliases, tensor in named_tensors(self.module):
            flat, shape = tensor.detach().view(-1), tuple(tensor.shape)
            yield Piece("weight", name, flat, 0, shape, aliases=aliases)
            if tensor.requires_grad:
                yield from moments_of(name, self._optimizer.state.get(tensor, {}), flat, 0, shape)


def gradient_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Norm of all gradients together, added up in double precision as DeepSpeed does.

    In single precision torch's sum over a vocabulary's table was wrong by 3e-5, and clipping by it with it.
    """
    norms = [torch.linalg.vector_norm(one.grad, dtype=torch.float64) for one in parameters if one.grad is not None]
    return torch.linalg.vector_norm(torch.stack(norms))
