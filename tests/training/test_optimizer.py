import numpy as np
import pytest
import torch
from torch import nn

from neurolm.training.engine import TorchEngine
from neurolm.training.optimizer import OptimizerConfig, build_optimizer, learning_rate, start_moments


def test_warmup_reaches_the_peak_at_both_sides_of_the_turn_and_the_cosine_never_the_minimum() -> None:
    config = OptimizerConfig(learning_rate=1.0, min_learning_rate=0.1, warmup_ratio=0.25)
    rates = [learning_rate(step, 12, config) for step in range(12)]
    assert rates[:4] == [0, 0.5, 1, 1]
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[-1] == pytest.approx(0.1 + 0.45 * (1 + np.cos(np.pi * 8 / 9)))
    assert rates[-1] > 0.1


@pytest.mark.parametrize(("ratio", "first", "last"), [(0.0, 1.0, 0.5), (0.5, 0.0, 1.0), (1.0, 0.0, 1.0)])
def test_schedules_of_two_steps(ratio: float, first: float, last: float) -> None:
    config = OptimizerConfig(learning_rate=1.0, warmup_ratio=ratio)
    assert [learning_rate(step, 2, config) for step in range(2)] == pytest.approx([first, last])


def test_vectors_and_frozen_parameters_are_not_decayed() -> None:
    module = nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm(4), nn.Linear(4, 4))
    frozen = nn.Linear(4, 4).requires_grad_(False)
    module.append(frozen)
    optimizer = build_optimizer(module, OptimizerConfig(learning_rate=0.1, weight_decay=0.3, beta2=0.7, epsilon=1e-6))
    decayed, plain = optimizer.param_groups
    assert [tuple(one.shape) for one in decayed["params"]] == [(5, 4), (4, 4)]
    assert [tuple(one.shape) for one in plain["params"]] == [(4,), (4,), (4,)]
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    assert (plain["betas"], plain["eps"]) == ((0.9, 0.7), 1e-6)


class Product(nn.Module):
    """A loss of known gradient: the sum of matrix and vector."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.ones(2, 2))
        self.vector = nn.Parameter(torch.ones(2))

    def forward(self, scale: float) -> dict[str, torch.Tensor]:
        return {"loss": scale * (self.matrix.sum() + self.vector.sum())}


def test_one_step_of_the_engine_by_hand() -> None:
    module = Product()
    settings = OptimizerConfig(learning_rate=0.1, weight_decay=0.5, warmup_ratio=0, clip_norm=0.5)
    engine = TorchEngine(module, settings, total_steps=4, device=torch.device("cpu"))
    engine.backward(engine(1.0)["loss"], is_last=False)
    engine.backward(engine(2.0)["loss"], is_last=True)  # gradients of micro-batches add up to 3 everywhere
    told = engine.step()
    assert told == {"gradient_norm": pytest.approx(3 * 6**0.5), "learning_rate": 0.1}
    # Adam's first step moves every weight by the learning rate; the matrix first shrinks by 0.1 * 0.5.
    torch.testing.assert_close(module.matrix.data, torch.full((2, 2), 0.95 - 0.1), atol=1e-6, rtol=0)
    torch.testing.assert_close(module.vector.data, torch.full((2,), 0.9), atol=1e-6, rtol=0)
    assert module.matrix.grad is None
    first_moment = engine._optimizer.state[module.vector]["exp_avg"]
    torch.testing.assert_close(first_moment, torch.full((2,), 0.1 * 0.5 / 6**0.5))  # of the clipped gradient


def test_started_moments_are_those_that_adam_starts_with() -> None:
    """Whether the optimizer or `start_moments` made them, the next updates are the same bits."""
    weights = [torch.nn.Parameter(torch.linspace(-1, 1, 7)) for _ in range(2)]
    optimizers = [torch.optim.AdamW([weight], lr=0.1) for weight in weights]
    start_moments(optimizers[1].state[weights[1]], weights[1], torch.float32, 0)
    for step in range(3):
        for weight, optimizer in zip(weights, optimizers, strict=True):
            weight.grad = torch.full((7,), float(step + 1))
            optimizer.step()
    assert torch.equal(weights[0], weights[1])
    state = optimizers[0].state[weights[0]]
    moments = state["exp_avg"].clone()
    start_moments(state, weights[0], torch.float32, 9)
    assert torch.equal(state["exp_avg"], moments) and state["step"] == 9
    counted = {"step": 0}  # as DeepSpeed's Adam for the CPU counts
    start_moments(counted, weights[0], torch.bfloat16, 4)
    assert counted["step"] == 4 and isinstance(counted["step"], int)
