"""What holds for the losses of all three stages."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurolm.eeg.tokens import TokenDtype
from neurolm.training.encoding import encode_windows
from neurolm.training.instruct import InstructLossConfig, InstructStage
from neurolm.training.pretrain import PretrainLossConfig, PretrainStage
from neurolm.training.stage import Stage
from neurolm.training.tokenizer import TokenizerLossConfig, TokenizerStage
from tests.tiny import mixed_windows, parts, tasks, tiny_neurolm, tiny_tokenizer, total_counts

TEXT = np.random.default_rng(0).integers(0, 50257, (3, 9))
TABLE = torch.randn(50257, 16, generator=torch.Generator().manual_seed(0))


def tokenizer_stage() -> TokenizerStage:
    stage = TokenizerStage(tiny_tokenizer(), TABLE, TokenizerLossConfig())
    stage.alpha = 0.7
    return stage


def pretrain_stage() -> PretrainStage:
    return PretrainStage(tiny_neurolm(), PretrainLossConfig(text_weight=0.5))


def instruct_stage() -> InstructStage:
    return InstructStage(tiny_neurolm(), tasks(), InstructLossConfig(label_smoothing=0.1))


STAGES = {"tokenizer": tokenizer_stage, "pretrain": pretrain_stage, "instruct": instruct_stage}
every_stage = pytest.mark.parametrize("name", list(STAGES))


def run(stage: Stage, places: list[list[int]], with_text: bool = True) -> tuple[dict[str, float], torch.Tensor]:
    """Summed shares and gradients of a global batch that is cut in the given way."""
    stage.zero_grad()
    batches = parts(mixed_windows(), TEXT if with_text else None, places, isinstance(stage, InstructStage))
    totals = total_counts(batches)
    sums: dict[str, float] = {}
    names = set()
    for batch in batches:
        shares = stage(batch, totals)
        names.add(tuple(sorted(shares)))
        shares["loss"].backward()
        for name, value in shares.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
    assert len(names) == 1, "workers could not add up their metrics"
    trained = [one for one in stage.parameters() if one.requires_grad]
    assert all(one.grad is not None for one in trained) or not with_text
    gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in trained]
    return sums, torch.cat([one.flatten() for one in gradients])


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@every_stage
@settings(max_examples=8, deadline=None)
@given(cut=st.lists(st.integers(0, 2), min_size=7, max_size=7))
def test_shares_add_up_however_a_batch_is_cut(name: str, cut: list[int]) -> None:
    """Three workers or micro-batches, some perhaps without a window."""
    stage = STAGES[name]()
    whole, whole_gradient = run(stage, [list(range(7))])
    pieces = [[place for place in range(7) if cut[place] == part] for part in range(3)]
    summed, summed_gradient = run(stage, pieces)
    assert summed == pytest.approx(whole, rel=1e-5, abs=1e-7)
    assert relative_error(summed_gradient, whole_gradient) < 1e-5


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-6), ("bfloat16", 0.05)])
@pytest.mark.parametrize("name", ["pretrain", "instruct"])
def test_tokens_computed_before_give_the_gradients_of_raw_windows(name: str, dtype: TokenDtype, limit: float) -> None:
    stage = STAGES[name]()
    assert isinstance(stage, PretrainStage | InstructStage)
    encoded = encode_windows(stage.model.tokenizer, mixed_windows(), dtype)
    batch, kept = (parts(one, None, [list(range(7))], name == "instruct")[0] for one in (mixed_windows(), encoded))
    gradients = []
    for one in (batch, kept):
        assert one.counts == batch.counts
        stage.zero_grad()
        stage(one, total_counts([batch]))["loss"].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in stage.parameters() if p.grad is not None]))
    assert relative_error(gradients[1], gradients[0]) < limit


@every_stage
def test_bfloat16_products_stay_beside_float32(name: str) -> None:
    stage = STAGES[name]()
    exact, _ = run(stage, [list(range(7))])
    stage.precision = "bfloat16"
    rounded, gradient = run(stage, [list(range(7))])
    assert rounded["loss"] == pytest.approx(exact["loss"], rel=0.02)
    assert rounded["loss"] != exact["loss"]
    assert gradient.dtype == torch.float32 and torch.isfinite(gradient).all()


@every_stage
def test_every_parameter_gets_a_gradient_without_windows(name: str) -> None:
    """An engine that reduces gradients would otherwise wait for a worker that has nothing left to do."""
    stage = STAGES[name]()
    (batch,) = parts([], TEXT[:0], [[]], with_tasks=False)
    totals = dict.fromkeys(batch.counts, 10.0)
    shares = stage(batch, totals)
    shares["loss"].backward()
    assert float(shares["loss"].detach()) == 0
    assert all(one.grad is not None and not one.grad.any() for one in stage.parameters() if one.requires_grad)


@every_stage
def test_a_run_without_text_reports_no_text(name: str) -> None:
    sums, _ = run(STAGES[name](), [list(range(7))], with_text=False)
    assert not {"text_loss", "domain_eeg", "domain_text"} & set(sums)


@every_stage
def test_a_loss_is_the_weighted_sum_of_what_is_reported(name: str) -> None:
    weights: dict[str, Callable[[dict[str, float]], float]] = {
        "tokenizer": lambda s: s["commitment"] + s["raw"] + s["frequency"] + s["domain_eeg"] + s["domain_text"],
        "pretrain": lambda s: s["eeg_loss"] + 0.5 * s["text_loss"],
        "instruct": lambda s: s["answer_loss"] + s["text_loss"],
    }
    sums, _ = run(STAGES[name](), [list(range(7))])
    assert sums["loss"] == pytest.approx(weights[name](sums), rel=1e-5)
