from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import numpy as np
import pytest
import torch

from neurolm.config import UserError
from neurolm.models.neural_tokenizer import NeuralTokenizer
from neurolm.sequences import Batch, collate
from neurolm.training.context import LocalContext
from neurolm.training.tokenizer import TokenizerLossConfig, TokenizerStage, start_positions
from tests.tiny import TOKENIZER, mixed_windows, parts, tiny_tokenizer, total_counts


class Worker:
    """One of several workers that are threads of this process."""

    device = torch.device("cpu")

    def __init__(self, rank: int, barrier: Barrier, board: list[Any]) -> None:
        self.rank, self.world_size = rank, barrier.parties
        self._barrier, self._board = barrier, board

    def all_gather_object(self, value: Any) -> list[Any]:
        self._board[self.rank] = value
        self._barrier.wait()
        everyone = list(self._board)
        self._barrier.wait()
        return everyone

    def all_reduce_sum(self, values: torch.Tensor) -> torch.Tensor:
        return torch.stack(self.all_gather_object(values.clone())).sum(0)

    def report(self, metrics: dict[str, Any], checkpoint: Path | None) -> None:
        raise AssertionError("stages report nothing themselves")


def fresh_stage() -> TokenizerStage:
    torch.manual_seed(0)
    return TokenizerStage(NeuralTokenizer(TOKENIZER), None, TokenizerLossConfig()).train()


def codebooks(places: list[list[int]]) -> list[torch.Tensor]:
    """Each worker's codebook after the start and one step."""
    batches = parts(mixed_windows(), None, places, with_tasks=False)
    totals = total_counts(batches)
    stages = [fresh_stage() for _ in places]
    barrier, board = Barrier(len(places)), [None] * len(places)
    errors: list[BaseException] = []

    def work(rank: int) -> None:
        try:
            context = Worker(rank, barrier, board)
            stages[rank].before_training([batches[rank]], context)
            stages[rank](batches[rank], totals)
            stages[rank].after_step(context)
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [Thread(target=work, args=(rank,)) for rank in range(len(places))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    return [stage.tokenizer.quantizer.codebook for stage in stages]


def started(batches: list[Batch]) -> torch.Tensor:
    stage = fresh_stage()
    stage.before_training(batches, LocalContext())
    return stage.tokenizer.quantizer.codebook


def test_workers_start_and_move_the_codebook_as_one() -> None:
    (alone,) = codebooks([[0, 1, 2, 3, 4, 5, 6]])
    first, second = codebooks([[5, 0, 3], [6, 1, 2, 4]])
    assert torch.equal(first, second)
    torch.testing.assert_close(first, alone, rtol=1e-5, atol=1e-6)
    (idle, busy) = codebooks([[], [0, 1, 2, 3, 4, 5, 6]])
    assert torch.equal(idle, busy)
    torch.testing.assert_close(idle, alone, rtol=1e-5, atol=1e-6)


def test_the_start_is_bitwise_independent_of_how_a_batch_is_cut() -> None:
    whole = started(parts(mixed_windows(), None, [[0, 1, 2, 3, 4, 5, 6]], with_tasks=False))
    cut = started(parts(mixed_windows(), None, [[6, 2], [], [0, 4], [1, 3, 5]], with_tasks=False))
    assert torch.equal(whole, cut)


def test_the_start_is_from_latents_and_happens_once() -> None:
    stage = fresh_stage()
    batches = parts(mixed_windows(), None, [[0, 1, 2, 3, 4, 5, 6]], with_tasks=False)
    before = stage.tokenizer.quantizer.codebook.clone()
    stage.before_training(batches, LocalContext())
    after = stage.tokenizer.quantizer.codebook.clone()
    assert not torch.equal(before, after) and stage.tokenizer.quantizer.initialised
    group = batches[0].groups[0]
    with torch.no_grad():
        latents = stage.tokenizer.latents(stage.tokenizer.encode(group.signal, group.channel_index, group.time_indices))
    to_random, to_means = ((latents @ rows.T).amax(-1) for rows in (before, after))
    assert to_means.mean() > 0.95 > 0.8 > to_random.mean()
    stage.before_training(batches[:1], LocalContext())
    assert torch.equal(stage.tokenizer.quantizer.codebook, after)


def test_a_large_batch_is_thinned_evenly() -> None:
    assert start_positions({position: 10 for position in range(6)}, limit=60) == frozenset(range(6))
    assert start_positions({position: 10 for position in range(6)}, limit=30) == {0, 2, 4}
    assert start_positions({7: 10, 3: 10}, limit=1) == {3}


def test_losses_are_means_over_elements() -> None:
    """Against the tokenizer's own sums, window by window."""
    stage = fresh_stage().eval().requires_grad_(False)
    batch = collate(mixed_windows(), np.arange(7), text=None, tasks=None)
    shares = stage(batch, total_counts([batch]))
    for name, values_per_token in (("commitment", 8), ("raw", 200), ("frequency", 100)):
        sums = 0.0
        for window in mixed_windows():
            (group,) = collate([window], np.arange(1), text=None, tasks=None).groups
            sums += float(stage.tokenizer(group.signal, group.channel_index, group.time_indices).squared_errors[name])
        assert float(shares[name]) == pytest.approx(sums / (27 * values_per_token), rel=1e-4)


def test_the_classifier_learns_and_the_encoder_unlearns() -> None:
    """The encoder's gradient is alpha times the true one, with the other sign; the classifier's is whole."""
    table = torch.randn(50257, 16, generator=torch.Generator().manual_seed(0))
    losses = TokenizerLossConfig(raw_weight=0, frequency_weight=0)
    stage = TokenizerStage(tiny_tokenizer(), table, losses)
    assert "text_table" not in stage.state_dict()
    batch = collate(mixed_windows(), np.arange(7), text=np.arange(20).reshape(2, 10), tasks=None)
    gradients = {}
    for step in (0, 5, 10):
        stage.before_step(step, 10)
        stage.zero_grad()
        stage(batch, total_counts([batch]))["loss"].backward()
        encoder, head = stage.tokenizer.encoder.norm.weight.grad, stage.classifier.layers[-1].weight.grad
        gradients[step] = (encoder.clone(), head.clone())
    at_start = gradients[0][0]  # the commitment loss alone
    half, whole = (gradients[step][0] - at_start for step in (5, 10))
    torch.testing.assert_close(half / 0.98661430, whole / 0.99990920, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(gradients[5][1], gradients[0][1])
    assert gradients[0][1].any() and whole.any()
    plain = collate(mixed_windows(), np.arange(7), text=None, tasks=None)
    features = [stage.tokenizer.encode(g.signal, g.channel_index, g.time_indices) for g in plain.groups]
    stage.zero_grad()
    (sum(stage.classifier.loss_sum(one, 0) for one in features) / 27).backward()
    torch.testing.assert_close(whole, -0.99990920 * stage.tokenizer.encoder.norm.weight.grad, rtol=1e-3, atol=1e-6)


def test_a_text_table_of_another_width_is_refused() -> None:
    with pytest.raises(UserError, match="rows have 5 values, the tokenizer's hidden_size is 16"):
        TokenizerStage(tiny_tokenizer(), torch.zeros(3, 5), TokenizerLossConfig())
