"""What a trace without values says is what a real step does."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from neurolm.models.neural_tokenizer import NeuralTokenizer
from neurolm.models.neurolm import NeuroLM, NeuroLMConfig
from neurolm.planning.stages import _CountedTargets
from neurolm.planning.trace import Tracer, WindowShape, _Ledger
from neurolm.sequences import Batch, collate
from neurolm.training.instruct import InstructLossConfig, InstructStage
from neurolm.training.pretrain import PretrainLossConfig, PretrainStage
from neurolm.training.stage import Stage
from neurolm.training.tokenizer import TokenizerLossConfig, TokenizerStage
from tests import tiny

LENGTH = 40
SHAPES = {"tokenizer": WindowShape(3, 5), "pretrain": WindowShape(3, 5), "instruct": WindowShape(3, 5, "workload")}


DEEP = NeuroLMConfig(
    tokenizer=replace(tiny.TOKENIZER, hidden_size=64, num_layers=8, decoder_layers=8),
    language_model=replace(tiny.MODEL.language_model, hidden_size=64, num_layers=12),
)
"""Deep enough for activations of blocks to be what counts."""
LONG = {name: replace(shape, num_channels=16, num_seconds=16) for name, shape in SHAPES.items()}


def build(stage: str, *, planned: bool, config: NeuroLMConfig = tiny.MODEL) -> Stage:
    if stage == "tokenizer":
        tokenizer = NeuralTokenizer(config.tokenizer)
        return TokenizerStage(tokenizer, torch.empty(50, config.tokenizer.hidden_size), TokenizerLossConfig())
    model = NeuroLM(config)
    if stage == "pretrain":
        return PretrainStage(model, PretrainLossConfig())
    kind = _CountedTargets if planned else InstructStage
    return kind(model, tiny.tasks(), InstructLossConfig(pooled_weight=1.0))


def tracer_of(stage: str, *, config: NeuroLMConfig = tiny.MODEL, dtype: torch.dtype = torch.float32) -> Tracer:
    with torch.device("meta"):
        planned = build(stage, planned=True, config=config)
    planned.precision = "float32" if dtype == torch.float32 else "bfloat16"
    return Tracer(planned, tiny.tasks(), dtype)


def real_batch(stage: str, num_windows: int, num_crops: int) -> Batch:
    shape = SHAPES[stage]
    windows = [
        tiny.stored_window(shape.num_channels, shape.num_seconds * 200, seed=seed) for seed in range(num_windows)
    ]
    text = np.ones((num_crops, LENGTH + 1), dtype=np.int64) if num_crops else None
    return collate(windows, np.arange(num_windows), text=text, tasks=tiny.tasks() if stage == "instruct" else None)


@pytest.mark.parametrize("stage", SHAPES)
@pytest.mark.parametrize(("num_windows", "num_crops"), [(1, 0), (4, 0), (2, 2)])
def test_a_trace_counts_the_operations_and_bytes_of_a_real_step(stage: str, num_windows: int, num_crops: int) -> None:
    trace = tracer_of(stage)(SHAPES[stage], num_windows, num_crops, LENGTH)

    real, batch = build(stage, planned=False), real_batch(stage, num_windows, num_crops)
    totals = {name: float(number) for name, number in batch.counts.items()}
    real(batch, totals)["loss"].backward()  # what is made once is made here
    counter = FlopCounterMode(display=False, custom_mapping=_missing_formulas())
    with counter:
        real(batch, totals)["loss"].backward()
    assert trace.flop == counter.get_total_flops()

    real.zero_grad(set_to_none=True)
    ledger = _Ledger(one.untyped_storage() for one in [*real.parameters(), *real.buffers()])
    with ledger:
        real(batch, totals)["loss"].backward()
    assert trace.peak_bytes == pytest.approx(ledger.peak, rel=0.02)


def _missing_formulas() -> dict[object, object]:
    """What torch's counter lacks, from shapes, as it wants it."""
    aten = torch.ops.aten
    return {
        aten.addmm_: lambda total, left, right, **_: 2 * left[0] * left[1] * right[1],
        aten._scaled_dot_product_flash_attention_for_cpu: lambda query, key, value, *_, **__: sdpa_flop_count(
            query, key, value
        ),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: (
            lambda gradient, query, key, value, *_, **__: sdpa_backward_flop_count(gradient, query, key, value)
        ),
    }


def test_attention_and_layers_by_hand() -> None:
    """Two blocks of width 16 for 15 tokens, forward: products 24 n d^2 and attention 4 n^2 d a block."""
    tracer = tracer_of("pretrain")
    longer, shorter = (tracer(WindowShape(1, seconds), 1, 0, LENGTH).flop for seconds in (31, 1))
    num_tokens, width = 31, 16
    blocks = 2 * (24 * num_tokens * width**2 + 4 * num_tokens**2 * width)
    backward = 2 * 2 * 24 * num_tokens * width**2 + 2 * 10 * num_tokens**2 * width
    encoder = blocks  # frozen: forward only, of the same size here
    head = 3 * 2 * (num_tokens - 1) * width * (50304 + 32)
    others = (longer - (encoder + blocks + backward + head)) / longer  # convolutions, latents, codes
    assert 0 < others < 0.03
    assert shorter < longer / 31  # attention and the head's targets grow faster than tokens


def test_a_frozen_encoder_is_not_trained_and_text_is_read_by_itself() -> None:
    tracer = tracer_of("pretrain")
    one, two = tracer(SHAPES["pretrain"], 1, 0, LENGTH), tracer(SHAPES["pretrain"], 2, 0, LENGTH)
    assert two.flop == 2 * one.flop
    text, both = tracer(None, 0, 1, LENGTH), tracer(SHAPES["pretrain"], 1, 1, LENGTH)
    assert both.flop == one.flop + text.flop


@pytest.mark.parametrize("stage", SHAPES)
def test_checkpointing_keeps_less_and_computes_more(stage: str) -> None:
    tracer = tracer_of(stage, config=DEEP)
    plain = tracer(LONG[stage], 24, 0, LENGTH)
    checkpointed = tracer(LONG[stage], 24, 0, LENGTH, checkpointing=True)
    assert checkpointed.activation_bytes < 0.6 * plain.activation_bytes
    assert plain.flop < checkpointed.flop < 1.4 * plain.flop
    assert tracer(LONG[stage], 24, 0, LENGTH) == plain


def test_gradients_of_text_wait_for_those_of_eeg() -> None:
    """Both passes share the weights: the first gradient of each is held until the second is there."""
    tracer = tracer_of("pretrain")
    blocks = sum(one.numel() for name, one in build("pretrain", planned=True).named_parameters() if ".h." in name)
    text = tracer(None, 0, 1, LENGTH, checkpointing=True)
    both = tracer(WindowShape(1, 1), 1, 1, LENGTH, checkpointing=True)
    assert both.activation_bytes > text.activation_bytes
    assert both.activation_bytes >= 4 * blocks


@pytest.mark.parametrize("stage", SHAPES)
def test_bfloat16_halves_activations_about(stage: str) -> None:
    full = tracer_of(stage, config=DEEP)(LONG[stage], 64, 0, LENGTH)
    low = tracer_of(stage, config=DEEP, dtype=torch.bfloat16)(LONG[stage], 64, 0, LENGTH)
    assert 0.4 < low.activation_bytes / full.activation_bytes < 0.9
    assert low.flop == full.flop
