"""No training step waits for its device: fake tensors have shapes but no values, and refuse to be looked at."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode

from neurolm.training.instruct import InstructLossConfig, InstructStage
from neurolm.training.pretrain import PretrainLossConfig, PretrainStage
from neurolm.training.stage import Precision, Stage
from neurolm.training.tokenizer import TokenizerLossConfig, TokenizerStage
from tests.tiny import mixed_windows, parts, tasks, tiny_neurolm, tiny_tokenizer, total_counts

STAGES: dict[str, Callable[[], Stage]] = {
    "tokenizer": lambda: TokenizerStage(tiny_tokenizer(), None, TokenizerLossConfig()),
    "pretrain": lambda: PretrainStage(tiny_neurolm(), PretrainLossConfig()),
    "instruct": lambda: InstructStage(tiny_neurolm(), tasks(), InstructLossConfig(pooled_weight=1.0)),
}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", STAGES)
def test_a_step_needs_no_value_from_the_device(name: str, precision: Precision) -> None:
    stage = STAGES[name]()
    stage.precision = precision
    text = np.zeros((2, 9), dtype=np.int64) if name != "tokenizer" else None
    (batch,) = parts(mixed_windows(), text, [range(7)], with_tasks=name == "instruct")
    with FakeTensorMode(allow_non_fake_inputs=True):
        stage(batch, total_counts([batch]))["loss"].backward()


def test_fake_tensors_would_show_a_wait() -> None:
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(DynamicOutputShapeException):
        torch.ones(3)[torch.ones(3) > 0]
