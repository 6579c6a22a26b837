"""What a run tells of its speed is counted from shapes, summed over workers, and costs no wait."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from neurolm.planning.trace import Tracer, WindowShape
from neurolm.training.batches import StepBatch
from neurolm.training.context import LocalContext
from neurolm.training.encoding import encode_windows
from neurolm.training.flops import FORMULAS, BatchFlops
from neurolm.training.instruct import InstructLossConfig, InstructStage
from neurolm.training.loop import sum_over_workers
from neurolm.training.pretrain import PretrainLossConfig, PretrainStage
from neurolm.training.stage import Stage
from neurolm.training.throughput import Throughput
from neurolm.training.tokenizer import TokenizerLossConfig, TokenizerStage
from tests.tiny import mixed_windows, parts, stored_window, tasks, tiny_neurolm, tiny_tokenizer, total_counts

TABLE = torch.randn(50257, 16, generator=torch.Generator().manual_seed(0))
TEXT = np.random.default_rng(0).integers(0, 50257, (3, 9))
STAGES = {
    "tokenizer": lambda: TokenizerStage(tiny_tokenizer(), TABLE, TokenizerLossConfig()),
    "pretrain": lambda: PretrainStage(tiny_neurolm(), PretrainLossConfig()),
    "instruct": lambda: InstructStage(tiny_neurolm(), tasks(), InstructLossConfig()),
}


def step_batch(stage: Stage, text: np.ndarray | None = TEXT) -> StepBatch:
    (batch,) = parts(mixed_windows(), text, [range(7)], isinstance(stage, InstructStage))
    return StepBatch(0, (batch,), batch.counts, 7)


@pytest.mark.parametrize("name", STAGES)
def test_operations_are_those_of_a_real_pass(name: str) -> None:
    stage = STAGES[name]()
    (batch,) = step_batch(stage).micro_batches
    before = {key: value.clone() for key, value in stage.state_dict().items()}
    state = torch.get_rng_state()
    counted = BatchFlops(stage)(batch)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in stage.state_dict().items())
    assert all(parameter.grad is None for parameter in stage.parameters())
    with FlopCounterMode(display=False, custom_mapping={}) as counter:
        counter.flop_registry |= FORMULAS
        stage(batch, total_counts([batch]))["loss"].backward()
    # A task's answers differ in length, and one window stands for its group.
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.02 if name == "instruct" else 1e-9)


def test_operations_are_those_of_the_plan() -> None:
    with torch.device("meta"):
        planned = PretrainStage(tiny_neurolm_on_meta(), PretrainLossConfig())
    trace = Tracer(planned, {})
    (batch,) = parts([stored_window(3, 600)] * 4, TEXT, [range(4)], with_tasks=False)
    flops = BatchFlops(PretrainStage(tiny_neurolm(), PretrainLossConfig()))
    expected = 4 * trace(WindowShape(3, 3), 1, 0, 8).flop + 3 * trace(None, 0, 1, 8).flop
    assert flops(batch) == expected


def tiny_neurolm_on_meta() -> torch.nn.Module:
    from neurolm.models.neurolm import NeuroLM
    from tests.tiny import MODEL

    return NeuroLM(MODEL)


def test_tokens_computed_before_save_the_encoders_operations() -> None:
    stage = PretrainStage(tiny_neurolm(), PretrainLossConfig())
    flops = BatchFlops(stage)
    encoded = encode_windows(stage.model.tokenizer, mixed_windows(), "float32")
    raw, kept = (parts(one, None, [range(7)], with_tasks=False)[0] for one in (mixed_windows(), encoded))
    assert 0 < flops(kept) < flops(raw)


def test_a_model_that_looks_at_its_values_is_trained_without_a_count(caplog: pytest.LogCaptureFixture) -> None:
    class Curious(PretrainStage):
        def loss_shares(self, batch, totals):  # type: ignore[no-untyped-def]
            if float(next(self.parameters()).detach().sum()) > 0:
                return super().loss_shares(batch, totals)
            return super().loss_shares(batch, totals)

    stage = Curious(tiny_neurolm(), PretrainLossConfig())
    throughput = Throughput(BatchFlops(stage), LocalContext(), peak_flops=1e12)
    for _ in range(2):
        throughput.passed(sum_over_workers(throughput.counts(step_batch(stage)), LocalContext()), 1.0)
    metrics = throughput.metrics()
    assert "throughput/flop_per_second" not in metrics and "throughput/mfu" not in metrics
    assert metrics["throughput/windows_per_second"] == 7
    assert "cannot be counted" in caplog.text


class SimulatedContext(LocalContext):
    """A worker whose sums are taken over by the test."""

    def __init__(self, rank: int, world_size: int) -> None:
        super().__init__()
        self.rank, self.world_size = rank, world_size  # type: ignore[misc]


def test_rates_are_those_of_all_workers_since_the_last_record() -> None:
    stage = STAGES["pretrain"]()
    halves = parts(mixed_windows(), TEXT, [range(3), range(3, 7)], with_tasks=False)
    workers = [Throughput(BatchFlops(stage), SimulatedContext(rank, 2), peak_flops=1e9) for rank in range(2)]
    counts = [
        worker.counts(StepBatch(0, (half,), half.counts, 0)) for worker, half in zip(workers, halves, strict=True)
    ]
    assert counts[0].keys() == counts[1].keys()  # or they could not be added
    totals = {name: counts[0][name] + counts[1][name] for name in counts[0]}
    for seconds in (1.5, 0.5):
        workers[0].passed(totals, seconds)
    metrics = workers[0].metrics()
    assert metrics["throughput/windows_per_second"] == 7
    # 3 windows of 2 channels and 2 s, one of 3 and 2, three of 1 and 3; three crops of eight ids
    assert metrics["throughput/tokens_per_second"] == 3 * 4 + 6 + 3 * 3 + 24
    assert metrics["throughput/eeg_hours_per_second"] == pytest.approx((4 * 2 + 3 * 3) / 3600)
    (whole,) = step_batch(stage).micro_batches
    assert metrics["throughput/flop_per_second"] == BatchFlops(stage)(whole)
    assert metrics["throughput/mfu"] == pytest.approx(metrics["throughput/flop_per_second"] / 2e9)
    first, second = (metrics[f"memory/rss_gib/worker-0000{rank}"] for rank in range(2))
    assert 0.01 < first < 100
    assert first - 1 / 1024 < second < 100, "both are this process, whose peak only grows (to a MiB)"
    workers[0].passed(totals, 7.0)
    assert workers[0].metrics()["throughput/windows_per_second"] == 1
