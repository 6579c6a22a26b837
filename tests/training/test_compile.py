import pytest
import torch

from neurolm.training.instruct import InstructLossConfig, InstructStage
from tests.tiny import mixed_windows, parts, tasks, tiny_neurolm, total_counts


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_compiled_blocks_give_the_same_losses_and_gradients() -> None:
    stages = [InstructStage(tiny_neurolm(), tasks(), InstructLossConfig()) for _ in range(2)]
    stages[1].compile_blocks()
    (batch,) = parts(mixed_windows(), None, [range(7)], with_tasks=True)
    losses = []
    for stage in stages:
        losses.append(stage(batch, total_counts([batch]))["loss"])
        losses[-1].backward()
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-6)
    plain, compiled = (dict(stage.named_parameters()) for stage in stages)
    assert plain.keys() == compiled.keys() and stages[0].state_dict().keys() == stages[1].state_dict().keys()
    for name, parameter in plain.items():
        if parameter.grad is not None:
            torch.testing.assert_close(compiled[name].grad, parameter.grad, rtol=1e-4, atol=1e-6)
