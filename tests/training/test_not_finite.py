"""A loss that is not finite names its windows and changes nothing; by policy the run goes on without the batch."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neurolm.eeg.reading import StepWindows
from neurolm.training.batches import BatchConfig, Batcher, StepBatch
from neurolm.training.context import LocalContext
from neurolm.training.engine import DivergedError, TorchEngine
from neurolm.training.flops import BatchFlops
from neurolm.training.instruct import InstructLossConfig, InstructStage
from neurolm.training.loop import Schedule, fit
from neurolm.training.not_finite import NotFiniteConfig, NotFiniteGuard, RollBack
from neurolm.training.optimizer import OptimizerConfig
from neurolm.training.pretrain import PretrainLossConfig, PretrainStage
from neurolm.training.profiling import StepProfiler
from neurolm.training.stage import Stage
from neurolm.training.throughput import Throughput
from neurolm.training.tokenizer import TokenizerLossConfig, TokenizerStage
from tests.tiny import mixed_windows, tasks, tiny_neurolm, tiny_tokenizer
from tests.training.test_loop import Recorder, Words

CPU = torch.device("cpu")
SETTINGS = OptimizerConfig(learning_rate=1e-3, warmup_ratio=0)
STAGES = {
    "tokenizer": lambda: TokenizerStage(tiny_tokenizer(), None, TokenizerLossConfig()),
    "pretrain": lambda: PretrainStage(tiny_neurolm(), PretrainLossConfig()),
    "instruct": lambda: InstructStage(tiny_neurolm(), tasks(), InstructLossConfig()),
}

NORM = "model.language_model.base.ln_f.weight"
"""A weight that every window goes through."""


def batches(broken: dict[int, Sequence[int]], *, asks: bool, text_size: int = 0, start: int = 0) -> Iterator[StepBatch]:
    """Steps of seven windows in three micro-batches; ``broken`` are windows by step that hold a NaN."""
    sizes = BatchConfig(size=7, text_size=text_size, text_length=8, micro_size=3)
    corpus: Any = Words() if text_size else None
    batcher = Batcher(sizes, corpus=corpus, tasks=tasks() if asks else None, seed=0)
    step = start
    while True:
        windows = mixed_windows()
        for place in broken.get(step, ()):
            signal = windows[place].signal.copy()
            signal[0, 17] = np.nan
            windows[place] = replace(windows[place], signal=signal, start_s=12.5)
        yield batcher(StepWindows(step, windows, np.arange(7)))
        step += 1


class Run:
    """A few steps of a stage; what they leave is looked at."""

    def __init__(self, name: str, folder: Path, policy: str = "stop", max_skipped: int = 10) -> None:
        self.name, self.recorder = name, TagKeeper()
        torch.manual_seed(0)
        self.stage: Stage = STAGES[name]()
        self.engine = TorchEngine(self.stage, SETTINGS, total_steps=8, device=CPU)
        context = LocalContext()
        settings = NotFiniteConfig(policy=policy, max_skipped=max_skipped)  # type: ignore[arg-type]
        self.guard = NotFiniteGuard(settings, self.stage, self.engine, context, self.recorder, folder)

    def train(self, total: int, broken: dict[int, Sequence[int]], text_size: int = 0) -> None:
        fit(
            self.stage,
            self.engine,
            batches(broken, asks=self.name == "instruct", text_size=text_size, start=self.engine.step_count),
            LocalContext(),
            self.recorder,
            Schedule(total, validations=1),
            throughput=Throughput(BatchFlops(self.stage), LocalContext(), peak_flops=None),
            profiler=StepProfiler(None, Path(), CPU),
            validate=lambda _: {},
            save=lambda *_: None,
            after_validation=lambda *_: None,
            guard=self.guard,
        )

    def state(self) -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in self.stage.state_dict().items()}


class TagKeeper(Recorder):
    """Keeps tags too."""

    def __init__(self) -> None:
        super().__init__()
        self.said: dict[str, str] = {}

    def tags(self, values: Any) -> None:
        self.said |= values


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize("name", STAGES)
def test_stop_names_the_windows_and_changes_nothing(name: str, tmp_path: Path) -> None:
    run = Run(name, tmp_path)
    run.train(2, {})
    before = run.state()
    said = (
        r"^step 2: .*loss.* not finite; no weight was changed\. Of the batch, the loss of 2 of its 7 windows is not "
        r"finite: recording r1 of workload at 12\.5 s \(its signal is not finite\), recording r12 of hmc at 12\.5 s "
        r"\(its signal is not finite\)\. Lower .*not_finite\.policy=skip"
    )
    with pytest.raises(DivergedError, match=said):
        run.train(4, {2: (1, 6)})
    assert_equal(run.state(), before)
    assert run.engine.step_count == 2
    (entry,) = [json.loads(line) for line in (tmp_path / "not_finite.jsonl").read_text().splitlines()]
    assert [one["is_suspect"] for one in entry["windows"]] == [False, True, False, False, False, False, True]
    assert (entry["step"], entry["done"], entry["text_is_suspect"]) == (2, "stopped", False)
    assert "recording r1 of workload" in run.recorder.said["not_finite"]


@pytest.mark.parametrize("name", STAGES)
def test_skip_goes_on_as_if_the_batch_had_not_been(name: str, tmp_path: Path) -> None:
    run, other = Run(name, tmp_path, "skip"), Run(name, tmp_path / "other")
    run.train(2, {})
    run.train(3, {2: (1,)})
    assert run.engine.step_count == 3
    other.train(2, {})
    assert_equal(run.state(), other.state())
    assert run.recorder.values[3]["skipped_steps"] == 1
    assert run.recorder.said["skipped_steps"] == "2"
    # Gradients and codebook statistics of the batch are forgotten: the next step is that of a run without it.
    other.engine.step_count = 3
    run.train(5, {})
    other.train(5, {})
    assert_equal(run.state(), other.state())


def test_as_many_batches_are_left_out_as_was_said_and_no_more(tmp_path: Path) -> None:
    run = Run("tokenizer", tmp_path, "skip", max_skipped=2)
    with pytest.raises(DivergedError, match=r"step 5: .*2 batches were left out before \(not_finite\.max_skipped\)"):
        run.train(8, {1: (0,), 3: (2,), 5: (4,), 7: (0,)})
    assert [entry["step"] for entry in run.guard.skipped] == [1, 3]
    done = [json.loads(line)["done"] for line in (tmp_path / "not_finite.jsonl").read_text().splitlines()]
    assert done == ["skipped", "skipped", "stopped"]


def test_a_gradient_that_is_not_finite_is_left_out_too(tmp_path: Path) -> None:
    run = Run("pretrain", tmp_path, "skip")
    weight = run.stage.get_parameter(NORM)
    hook = weight.register_hook(lambda gradient: gradient * math.inf)
    before = run.state()
    run.train(1, {})
    assert_equal(run.state(), before)
    assert run.guard.skipped[0]["reason"].startswith("step 0: gradient norm is")
    assert "no window has such a loss by itself; its windows were recording r0 of" in run.recorder.said["not_finite"]
    hook.remove()
    run.train(2, {})
    assert not torch.equal(run.state()[NORM], before[NORM])


def test_text_can_be_what_is_wrong(tmp_path: Path) -> None:
    run = Run("pretrain", tmp_path)
    embed_text = run.stage.model.embed_text  # type: ignore[union-attr]
    run.stage.model.embed_text = lambda ids: embed_text(ids) * math.nan  # type: ignore[union-attr, assignment]
    with pytest.raises(DivergedError, match="the loss of its text is not finite; its windows were recording r0"):
        run.train(1, {}, text_size=3)


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_broken_weights_are_never_saved_and_the_run_goes_back_without_the_step(policy: str, tmp_path: Path) -> None:
    run = Run("pretrain", tmp_path, policy)
    run.train(2, {})
    with torch.no_grad():
        run.stage.get_parameter(NORM)[0] = math.inf
    said = "step 1: its update made weights that are not finite"
    for look in (lambda: run.train(3, {}), lambda: run.guard.refuse_broken_weights_at(2)):
        with pytest.raises(RollBack if policy == "skip" else DivergedError, match=said):
            look()
    if policy == "skip":
        again = Run("pretrain", tmp_path, policy)
        again.train(2, {})
        assert [entry["step"] for entry in again.guard.skipped] == [1]
        plain = Run("pretrain", tmp_path / "plain")
        plain.train(1, {})
        assert_equal(again.state(), plain.state())
