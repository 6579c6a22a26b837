"""What holds for the losses of all three stages."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurolm.eeg.tokens import TokenDtype
from neurolm.sequences import collate
from neurolm.training.context import LocalContext
from neurolm.training.encoding import encode_windows
from neurolm.training.instruct import InstructLossConfig, InstructStage
from neurolm.training.loop import global_means
from neurolm.training.pretrain import PretrainLossConfig, PretrainStage
from neurolm.training.stage import Stage
from neurolm.training.tokenizer import TokenizerLossConfig, TokenizerStage
from tests.tiny import mixed_windows, parts, stored_window, tasks, tiny_neurolm, tiny_tokenizer, total_counts

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
            if "/" not in name:
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


STRATA = {
    "tokenizer": ("hmc", "absent", "workload"),
    "pretrain": ("hmc", "absent", "workload"),
    "instruct": ("hmc", "workload"),
}


@every_stage
def test_losses_by_data_set_or_task_are_means_of_their_own_windows(name: str) -> None:
    """Two workers, one of which has windows of one data set only; what a batch has nothing of is not told."""
    stage = STAGES[name]()
    asked = tasks() if name == "instruct" else None
    windows = mixed_windows()

    def means(places: list[list[int]], strata: tuple[str, ...]) -> dict[str, float]:
        batches = [
            collate([windows[place] for place in part], np.array(part), text=None, tasks=asked, strata=strata)
            for part in places
        ]
        totals = total_counts(batches)
        with torch.no_grad():
            several = [stage(batch, totals) for batch in batches]
        shares = {key: sum(one[key] for one in several) for key in several[0]}
        return global_means(shares, totals, strata, LocalContext())[0]

    strata = STRATA[name]
    whole = means([[5, 0, 1], [4, 2, 6, 3]], strata)
    alone = {"workload": means([[0, 1, 2, 3]], ()), "hmc": means([[4, 5, 6]], ())}
    losses = {"tokenizer": ("raw", "frequency"), "pretrain": ("eeg_loss",), "instruct": ("answer_loss",)}[name]
    assert {key for key in whole if "/" in key} == {f"{loss}/{one}" for loss in losses for one in alone}
    for loss in losses:
        for one, expected in alone.items():
            assert whole[f"{loss}/{one}"] == pytest.approx(expected[loss], rel=1e-5)
    assert {key: value for key, value in whole.items() if "/" not in key} == means([[5, 0, 1], [4, 2, 6, 3]], ())


def test_two_data_sets_of_one_shape_are_told_apart() -> None:
    stage = pretrain_stage()
    windows = [stored_window(2, 600, data_set=one, seed=seed) for seed, one in enumerate(("a", "b", "a", "b", "b"))]

    def mean(places: list[int], strata: tuple[str, ...]) -> dict[str, float]:
        batch = collate(
            [windows[place] for place in places], np.arange(len(places)), text=None, tasks=None, strata=strata
        )
        with torch.no_grad():
            return global_means(stage(batch, total_counts([batch])), total_counts([batch]), strata, LocalContext())[0]

    together = mean([0, 1, 2, 3, 4], ("a", "b"))
    assert together["eeg_loss/a"] == pytest.approx(mean([0, 2], ())["eeg_loss"], rel=1e-5)
    assert together["eeg_loss/b"] == pytest.approx(mean([1, 3, 4], ())["eeg_loss"], rel=1e-5)
