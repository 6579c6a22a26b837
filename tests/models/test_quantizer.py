import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from neurolm.models import quantizer as module
from neurolm.models.quantizer import Quantizer, cosine_kmeans


def unit(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape), dim=-1)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(2, 30), st.integers(1, 8), st.integers(0, 10**6))
def test_nearest_is_brute_force(num_tokens: int, num_codes: int, size: int, seed: int) -> None:
    torch.manual_seed(seed)
    quantizer, latents = Quantizer(num_codes, size), unit(num_tokens, size)
    distances = (latents[:, None] - quantizer.codebook).norm(dim=-1)
    found = distances.gather(1, quantizer.nearest(latents)[:, None])[:, 0]
    torch.testing.assert_close(found, distances.min(1).values, atol=1e-5, rtol=0)


def test_nearest_in_chunks_and_under_autocast_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    quantizer, latents = Quantizer(500, 16), unit(3, 100, 16)
    codes = quantizer.nearest(latents)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quantizer.nearest(latents), codes)
    monkeypatch.setattr(module, "SCORES_AT_ONCE", 500 * 7)
    assert torch.equal(quantizer.nearest(latents), codes)


def test_straight_through_gradient_and_commitment() -> None:
    quantizer = Quantizer(8, 4)
    latents = unit(2, 3, 4).requires_grad_()
    quantized = quantizer(latents)
    rows = quantizer.codebook[quantized.codes]
    torch.testing.assert_close(quantized.latents, rows)
    torch.testing.assert_close(quantized.squared_error, (rows - latents).square())
    weights = torch.randn(2, 3, 4)
    (quantized.latents * weights).sum().backward()
    torch.testing.assert_close(latents.grad, weights)


def test_update_by_hand() -> None:
    """Code 0 takes two latents, code 1 one, code 2 none."""
    quantizer = Quantizer(3, 2, decay=0.9).train()
    quantizer.codebook.copy_(torch.tensor([[1.0, 0], [0, 1], [-1, 0]]))
    a, b, c = F.normalize(torch.tensor([[1.0, 0.1], [1, 0.3], [0.2, 1]]), dim=-1)
    quantizer(torch.stack([a, c])[None])
    quantizer(b[None, None])
    quantizer.update()
    rows = [0.9 * torch.tensor([1.0, 0]) + 0.1 * F.normalize(a + b, dim=0), 0.9 * torch.tensor([0, 1.0]) + 0.1 * c]
    expected = F.normalize(torch.stack([*rows, torch.tensor([-1.0, 0])]), dim=-1)
    torch.testing.assert_close(quantizer.codebook, expected)
    torch.testing.assert_close(quantizer.cluster_size, torch.tensor([0.2, 0.1, 0]))
    assert not quantizer.counts.any() and not quantizer.sums.any()


def test_two_workers_update_as_one() -> None:
    latents = unit(2, 50, 8)
    together, first, second = (Quantizer(10, 8).train() for _ in range(3))
    for worker in (first, second):
        worker.load_state_dict(together.state_dict())
    together(latents)
    together.update()
    first(latents[:1])
    second(latents[1:])
    other = {id(first): second, id(second): first}
    states = {id(worker): torch.cat([worker.sums, worker.counts[:, None]], 1).clone() for worker in (first, second)}
    for worker in (first, second):
        worker.update(lambda tensor, worker=worker: tensor + states[id(other[id(worker)])])
    torch.testing.assert_close(first.codebook, together.codebook)
    assert torch.equal(first.codebook, second.codebook)


def test_eval_mode_learns_nothing() -> None:
    quantizer = Quantizer(4, 2).eval()
    quantizer(unit(1, 9, 2))
    assert not quantizer.counts.any()


def test_half_precision_engines_do_not_round_the_codebook() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), Quantizer(4, 2)).bfloat16()
    assert model[0].weight.dtype == torch.bfloat16
    assert {buffer.dtype for buffer in model[1].buffers() if buffer.is_floating_point()} == {torch.float32}


def test_start_is_a_function_of_samples_and_seed() -> None:
    samples = unit(100, 4)
    codebooks = []
    for seed in (1, 1, 2):
        torch.randn(3)  # the global generator must not matter
        quantizer = Quantizer(8, 4)
        assert not quantizer.initialised
        quantizer.start(samples, seed)
        assert quantizer.initialised
        codebooks.append(quantizer.codebook)
    assert torch.equal(codebooks[0], codebooks[1])
    assert not torch.allclose(codebooks[0], codebooks[2])
    torch.testing.assert_close(codebooks[0].norm(dim=-1), torch.ones(8))


def test_start_with_fewer_samples_than_codes() -> None:
    samples = unit(3, 4)
    quantizer = Quantizer(8, 4)
    quantizer.start(samples, seed=0)
    assert (quantizer.codebook @ samples.T).max(1).values.min() > 0.999


def test_kmeans_finds_separate_clusters() -> None:
    centres = torch.eye(4)
    samples = F.normalize(centres.repeat_interleave(20, 0) + 0.05 * torch.randn(80, 4), dim=-1)
    means, counts = cosine_kmeans(samples, samples[[0, 20, 40, 60]])
    assert counts.tolist() == [20] * 4
    assert (means @ centres.T).diagonal().min() > 0.99


def test_dead_codes_come_back_only_if_asked() -> None:
    latents = F.normalize(torch.tensor([[1.0, 0, 0], [0, 1, 0]]).repeat(50, 1) + 0.2 * torch.randn(100, 3), dim=-1)
    used = {}
    for revive_below in (0.0, 0.1):
        torch.manual_seed(3)
        quantizer = Quantizer(16, 3, decay=0.5, revive_below=revive_below).train()
        quantizer.codebook.copy_(F.normalize(torch.tensor([0, 0, -1.0]) + 0.01 * torch.randn(16, 3), dim=-1))
        quantizer.codebook[:2] = torch.eye(3)[:2]
        for _ in range(30):
            quantizer(latents[None])
            quantizer.update()
        used[revive_below] = len(quantizer.nearest(latents).unique())
        torch.testing.assert_close(quantizer.codebook.norm(dim=-1), torch.ones(16))
    assert used[0.0] == 2
    assert used[0.1] >= 10


def test_distances_as_released_are_those_of_the_surroundings() -> None:
    """Under bf16 autocast products are rounded and codes flip; without it nothing differs."""
    released = Quantizer(2000, 8, distance_dtype="autocast")
    exact, latents = Quantizer(2000, 8), unit(4, 500, 8)
    exact.codebook.copy_(released.codebook)
    assert torch.equal(released.nearest(latents), exact.nearest(latents))
    with torch.autocast("cpu", torch.bfloat16):
        found = released.nearest(latents)
    rows, codes = latents.flatten(0, -2), released.codebook
    products = (rows.bfloat16() @ codes.bfloat16().T).float()
    distances = rows.square().sum(1, keepdim=True) + codes.square().sum(1) - 2 * products
    assert torch.equal(found.flatten(), distances.argmin(1))
    assert 0 < int((found != exact.nearest(latents)).sum()) < found.numel() / 2
