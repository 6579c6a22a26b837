import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from neurolm.models import vocabulary_head
from neurolm.models.vocabulary_head import VocabularyHead


def plain(
    head: VocabularyHead, hidden: torch.Tensor, targets: torch.Tensor, smoothing: float
) -> tuple[torch.Tensor, torch.Tensor]:
    logits = head(hidden).float().flatten(0, -2)
    total = F.cross_entropy(logits, targets.flatten(), reduction="sum", label_smoothing=smoothing)
    return total, (logits.argmax(-1) == targets.flatten()).sum()


@given(
    positions=st.tuples(st.integers(1, 3), st.integers(1, 7)),
    at_once=st.integers(1, 200),
    smoothing=st.sampled_from([0.0, 0.2]),
    scale=st.sampled_from([0.1, 1.0, 30.0]),
    seed=st.integers(0, 99),
)
def test_chunks_equal_all_logits_at_once(
    positions: tuple[int, int], at_once: int, smoothing: float, scale: float, seed: int
) -> None:
    torch.manual_seed(seed)
    head = VocabularyHead(5, 11)
    hidden, targets = (scale * torch.randn(*positions, 5)).requires_grad_(), torch.randint(11, positions)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary_head, "LOGITS_AT_ONCE", at_once)
        ours = head(hidden, targets, smoothing)
        (0.3 * ours[0]).backward()
    found = hidden.grad, head.weight.grad
    hidden.grad = head.weight.grad = None
    theirs = plain(head, hidden, targets, smoothing)
    (0.3 * theirs[0]).backward()
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-5, atol=1e-5)
    assert ours[1] == theirs[1]
    for one, other in zip(found, (hidden.grad, head.weight.grad), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * scale)


def test_no_target_is_zero_and_differentiable() -> None:
    head = VocabularyHead(5, 11)
    hidden = torch.randn(0, 5, requires_grad=True)
    total, num_correct, _ = head(hidden, torch.zeros(0, dtype=torch.long))
    total.backward()
    assert total == 0 and num_correct == 0
    assert head.weight.grad is not None and not head.weight.grad.any()


def test_without_gradients_nothing_is_kept() -> None:
    head = VocabularyHead(5, 11)
    with torch.inference_mode():
        total, *_ = head(torch.randn(4, 5), torch.arange(4))
    assert not total.requires_grad and torch.isfinite(total)


def test_a_frozen_head_passes_gradients_on() -> None:
    head = VocabularyHead(5, 11).requires_grad_(False)
    hidden = torch.randn(4, 5, requires_grad=True)
    head(hidden, torch.arange(4))[0].backward()
    assert head.weight.grad is None and hidden.grad is not None and hidden.grad.any()


def test_under_autocast_products_are_rounded_and_sums_are_not() -> None:
    torch.manual_seed(0)
    head = VocabularyHead(64, 500)
    hidden, targets = torch.randn(300, 64, requires_grad=True), torch.randint(500, (300,))
    exact, *_ = plain(head, hidden, targets, 0.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded, *_ = head(hidden, targets)
    rounded.backward()
    assert rounded.dtype == torch.float32 and hidden.grad.dtype == torch.float32
    assert rounded != exact
    torch.testing.assert_close(rounded, exact, rtol=1e-3, atol=0)
