import math
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from neurolm.eeg.reading import StepWindows
from neurolm.models.neural_tokenizer import NeuralTokenizer
from neurolm.sequences import Batch
from neurolm.training.batches import BatchConfig, Batcher, StepBatch
from neurolm.training.checkpoint_policy import CheckpointClock
from neurolm.training.context import Call, LocalContext
from neurolm.training.engine import DivergedError, TorchEngine
from neurolm.training.flops import BatchFlops
from neurolm.training.instruct import InstructLossConfig, InstructStage
from neurolm.training.loop import Schedule, fit
from neurolm.training.not_finite import NotFiniteConfig, NotFiniteGuard
from neurolm.training.optimizer import OptimizerConfig
from neurolm.training.pretrain import PretrainLossConfig, PretrainStage
from neurolm.training.profiling import StepProfiler
from neurolm.training.randomness import seed_step
from neurolm.training.stage import Stage
from neurolm.training.stopping import Stopped
from neurolm.training.throughput import Throughput
from neurolm.training.tokenizer import TokenizerLossConfig, TokenizerStage
from tests.tiny import TOKENIZER, mixed_windows, tasks, tiny_neurolm

CPU = torch.device("cpu")
SETTINGS = OptimizerConfig(learning_rate=0.01, warmup_ratio=0)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards write into the working directory."""
    monkeypatch.chdir(tmp_path)


def guard(stage: Stage, engine: TorchEngine, context: LocalContext) -> NotFiniteGuard:
    return NotFiniteGuard(NotFiniteConfig(), stage, engine, context, Recorder(), Path())


class Recorder:
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.values: dict[int, dict[str, float]] = {}

    def params(self, values: Mapping[str, Any]) -> None: ...

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.values.setdefault(step, {}).update(values)

    def tags(self, values: Mapping[str, str]) -> None: ...

    def artifact(self, path: Path) -> None: ...

    def close(self, status: str = "FINISHED") -> None: ...


class Line(Stage):
    """Goes wrong in the way and at the step it is told to."""

    def __init__(self, how: str = "not at all", at_step: int = 2) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 2))
        self.how, self.at_step = how, at_step
        self.calls: list[str] = []

    def before_training(self, batches: Any, context: Any) -> None:
        self.calls.append("before_training")

    def before_step(self, step: int, total_steps: int) -> None:
        self.step = step
        self.calls.append(f"before_step {step}/{total_steps}")

    def after_step(self, context: Any) -> None:
        self.calls.append("after_step")

    def drop_step(self) -> None:
        self.calls.append("drop_step")

    def loss_shares(self, batch: Batch, totals: dict[str, float]) -> dict[str, Tensor]:
        loss = (self.weight - 3).square().mean()
        raw = loss.detach()
        if self.step == self.at_step:
            if self.how == "loss":
                raw = raw * math.nan
                loss = loss * math.nan
            elif self.how == "gradient":
                loss = loss + (self.weight - self.weight.detach()).abs().pow(0.5).sum()  # 0, with slope infinity
        return {"loss": loss, "raw": raw}


def steps(start: int = 0) -> Iterator[StepBatch]:
    empty = Batch(groups=())
    while True:
        yield StepBatch(start, (empty,), empty.counts, 0)
        start += 1


class CalledContext(LocalContext):
    """Hears what it is told at the steps it is told, from 0."""

    def __init__(self, calls: dict[int, Call]) -> None:
        super().__init__()
        self.calls, self.step = calls, -1

    def call(self) -> Call:
        self.step += 1
        return self.calls.get(self.step, Call.NOTHING)

    def is_leaving(self) -> bool:
        return self.step == 1


def run(
    stage: Line,
    engine: TorchEngine,
    total: int,
    recorder: Recorder,
    context: LocalContext | None = None,
    **schedule: Any,
) -> dict[str, float]:
    def save(step: int, metrics: dict[str, float]) -> Path:
        stage.calls.append(f"save {step}")
        return Path(f"checkpoint-{step}")

    def validate(is_last: bool) -> dict[str, float]:
        assert not stage.training
        return {"score": float(engine.step_count)}

    context = context or LocalContext()
    context.report = lambda metrics, checkpoint: stage.calls.append(f"report {metrics} {checkpoint}")  # type: ignore[method-assign]
    return fit(
        stage,
        engine,
        steps(engine.step_count),
        context,
        recorder,
        Schedule(total, **schedule),
        throughput=Throughput(BatchFlops(stage), context, peak_flops=None),
        profiler=StepProfiler(None, Path(), CPU),
        validate=validate,
        save=save,
        after_validation=lambda step, metrics: stage.calls.append(f"validated {step} {metrics['score']:g}"),
        guard=guard(stage, engine, context),
    )


@pytest.mark.parametrize(("how", "message"), [("loss", "step 2: loss, raw not finite"), ("gradient", "gradient norm")])
def test_a_loss_or_gradient_that_is_not_finite_stops_before_any_weight_changes(how: str, message: str) -> None:
    stage, recorder = Line(how), Recorder()
    engine = TorchEngine(stage, SETTINGS, total_steps=4, device=CPU)
    reference = Line()
    run(reference, TorchEngine(reference, SETTINGS, total_steps=4, device=CPU), 2, Recorder(), validations=2)
    with pytest.raises(DivergedError, match=message):
        run(stage, engine, 4, recorder, validations=4)
    assert torch.equal(stage.weight, reference.weight)  # as after two good steps
    assert engine.step_count == 2
    assert sorted(recorder.values) == [1, 2]
    assert [*stage.calls[-2:]] == ["before_step 2/4", "drop_step"]  # neither saved nor moved any codebook


def test_the_calls_of_a_run_in_order() -> None:
    stage, recorder = Line(), Recorder()
    engine = TorchEngine(stage, SETTINGS, total_steps=3, device=CPU)
    assert run(stage, engine, 3, recorder, validations=1, checkpoint_steps=2) == {"score": 3}
    assert stage.calls == [
        "before_training",
        *("before_step 0/3", "after_step"),
        *("before_step 1/3", "after_step", "save 2", "report {'step': 2} checkpoint-2"),
        *("before_step 2/3", "after_step", "validated 3 3", "save 3"),
        "report {'step': 3, 'score': 3.0} checkpoint-3",
    ]
    assert stage.training
    assert recorder.values[1]["loss"] == pytest.approx(4)
    assert recorder.values[3]["validation/score"] == 3
    for values in recorder.values.values():
        assert {"loss", "raw", "gradient_norm", "learning_rate", "progress", "data_wait_share"} <= values.keys()
        assert 0 <= values["data_wait_share"] <= 1


def saved(stage: Line) -> list[str]:
    return [call for call in stage.calls if call.startswith(("save", "report"))]


def test_a_call_to_stop_is_answered_after_the_step_with_a_checkpoint() -> None:
    stage = Line()
    engine = TorchEngine(stage, SETTINGS, total_steps=4, device=CPU)
    with pytest.raises(Stopped, match=r"after step 2 of 4; .* same command again goes on"):
        run(stage, engine, 4, Recorder(), CalledContext({1: Call.STOP}), validations=1)
    assert saved(stage) == ["save 2", "report {'step': 2} checkpoint-2"]
    assert engine.step_count == 2


def test_a_call_to_stop_in_the_last_step_changes_nothing() -> None:
    stage = Line()
    engine = TorchEngine(stage, SETTINGS, total_steps=2, device=CPU)
    assert run(stage, engine, 2, Recorder(), CalledContext({1: Call.STOP}), validations=1) == {"score": 2}


def test_a_node_that_is_about_to_go_is_worth_one_checkpoint() -> None:
    stage = Line()
    engine = TorchEngine(stage, SETTINGS, total_steps=4, device=CPU)
    run(stage, engine, 4, Recorder(), CalledContext({step: Call.LOOK for step in range(4)}), validations=1)
    assert [call for call in saved(stage) if call.startswith("save")] == ["save 2", "save 4"]


def test_a_loaded_model_is_trained_with_its_dropout_from_the_first_step() -> None:
    modes: list[bool] = []

    class Watched(Line):
        def before_step(self, step: int, total_steps: int) -> None:
            super().before_step(step, total_steps)
            modes.append(self.training)

    stage = Watched().eval()
    run(stage, TorchEngine(stage, SETTINGS, total_steps=3, device=CPU), 3, Recorder(), validations=3)
    assert modes == [True, True, True]


def test_a_call_to_save_is_answered_with_a_checkpoint() -> None:
    stage = Line()
    engine = TorchEngine(stage, SETTINGS, total_steps=4, device=CPU)
    run(stage, engine, 4, Recorder(), CalledContext({0: Call.SAVE, 2: Call.SAVE}), validations=1)
    assert [call for call in saved(stage) if call.startswith("save")] == ["save 1", "save 3", "save 4"]


def test_a_resumed_run_goes_on_where_it_was_and_starts_nothing_again() -> None:
    stage = Line()
    engine = TorchEngine(stage, SETTINGS, total_steps=3, device=CPU)
    run(stage, engine, 1, Recorder(), validations=1)
    stage.calls.clear()
    run(stage, engine, 3, Recorder(), validations=1)
    assert [call for call in stage.calls if call.startswith("before")] == ["before_step 1/3", "before_step 2/3"]
    stage.calls.clear()
    assert run(stage, engine, 3, Recorder(), validations=1) == {}
    assert stage.calls == []


@given(total=st.integers(1, 300), validations=st.integers(1, 40))
def test_a_run_validates_as_often_as_asked_evenly_and_at_its_end(total: int, validations: int) -> None:
    schedule = Schedule(total, validations)
    at = [step for step in range(1, total + 1) if schedule.validates(step)]
    assert len(at) == min(total, validations)
    assert at[-1] == total
    gaps = np.diff([0, *at])
    assert gaps.max() - gaps.min() <= 1
    assert at == [step for step in range(1, total + 1) if schedule.saves(step)]


def test_checkpoints_of_their_own_rhythm() -> None:
    schedule = Schedule(10, validations=2, checkpoint_steps=4)
    assert [step for step in range(1, 11) if schedule.validates(step)] == [5, 10]
    assert [step for step in range(1, 11) if schedule.saves(step)] == [4, 8, 10]


def test_a_checkpoint_is_due_by_the_clock_too() -> None:
    stage = Line()
    engine = TorchEngine(stage, SETTINGS, total_steps=3, device=CPU)
    run(stage, engine, 3, Recorder(), validations=1, checkpoint_minutes=1e-9)
    assert [call for call in stage.calls if call.startswith("save")] == ["save 1", "save 2", "save 3"]
    times = iter((0.0, 29.0, 31.0, 31.0, 60.0, 62.0))  # made, asked, asked, saved, asked, asked
    clock = CheckpointClock(0.5, lambda: next(times))
    assert [clock.is_due(), clock.is_due()] == [False, True]
    clock.saved()
    assert [clock.is_due(), clock.is_due()] == [False, True]
    assert not CheckpointClock(None).is_due()


def test_what_a_step_draws_follows_from_seed_step_and_worker() -> None:
    drawn = []
    for key in ((0, 1, 0), (0, 1, 0), (1, 1, 0), (0, 2, 0), (0, 1, 1), (-1, 1, 0)):
        seed_step(*key)
        drawn.append((torch.rand(()).item(), float(np.random.rand()), random.random()))
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 5


class GradientKeeper(TorchEngine):
    """Keeps the gradients of its first step."""

    gradients: Tensor | None = None

    def step(self) -> dict[str, float]:
        if self.gradients is None:
            trained = [one for one in self.module.parameters() if one.requires_grad]
            assert all(one.grad is not None for one in trained)
            self.gradients = torch.cat([one.grad.flatten() for one in trained if one.grad is not None])
        return super().step()


def tokenizer_stage() -> Stage:
    torch.manual_seed(0)
    table = torch.randn(50257, 16, generator=torch.Generator().manual_seed(0))
    return TokenizerStage(NeuralTokenizer(TOKENIZER), table, TokenizerLossConfig())  # the codebook starts in the loop


class Words:
    """A stand-in for a corpus."""

    def batch(self, step: int, batch_size: int, length: int, seed: int) -> np.ndarray:
        return np.random.default_rng(step).integers(0, 50257, (batch_size, length + 1))


@pytest.mark.parametrize(
    ("make", "asks"),
    [
        (tokenizer_stage, False),
        (lambda: PretrainStage(tiny_neurolm(), PretrainLossConfig()), False),
        (lambda: InstructStage(tiny_neurolm(), tasks(), InstructLossConfig()), True),
    ],
    ids=["tokenizer", "pretrain", "instruct"],
)
def test_training_is_the_same_whatever_the_micro_size(make: Any, asks: bool) -> None:
    found = []
    for micro_size in (None, 3, 1):
        sizes = BatchConfig(size=7, text_size=3, text_length=8, micro_size=micro_size)
        batcher = Batcher(sizes, corpus=Words(), tasks=tasks() if asks else None, seed=0)  # type: ignore[arg-type]
        stage, recorder = make(), Recorder()
        engine = GradientKeeper(stage, OptimizerConfig(learning_rate=1e-3), total_steps=10, device=CPU)
        parts = (batcher(StepWindows(step, mixed_windows(), np.arange(7))) for step in range(2))
        fit(
            stage,
            engine,
            parts,
            LocalContext(),
            recorder,
            Schedule(2, validations=1),
            throughput=Throughput(BatchFlops(stage), LocalContext(), peak_flops=None),
            profiler=StepProfiler(None, Path(), CPU),
            validate=lambda _: {},
            save=lambda *_: None,
            after_validation=lambda *_: None,
            guard=guard(stage, engine, LocalContext()),
        )
        assert engine.gradients is not None
        measured = ("throughput/", "memory/", "seconds_per_step", "data_wait_share", "validation_seconds")
        losses = [[values[name] for name in sorted(values) if not name.startswith(measured)]
                  for values in recorder.values.values()]  # fmt: skip
        found.append((engine.gradients, torch.tensor(losses)))
    for gradients, losses in found[1:]:
        torch.testing.assert_close(gradients, found[0][0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(losses, found[0][1], rtol=1e-4, atol=1e-6)
