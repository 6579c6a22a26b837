"""The same training, recorded: in one process, or by two of a gloo group that try one engine after another."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from neurolm.config import build, override
from neurolm.eeg.reading import read_steps
from neurolm.tracking import NullTracker
from neurolm.training.assembly import Assembly, assemble
from neurolm.training.context import LocalContext, ProcessGroupContext, RunContext
from neurolm.training.engine import Engine, TorchEngine
from neurolm.training.flops import BatchFlops
from neurolm.training.loop import fit
from neurolm.training.model_export import export
from neurolm.training.not_finite import NotFiniteGuard
from neurolm.training.profiling import StepProfiler
from neurolm.training.runs import STAGES
from neurolm.training.tensor_file import TensorStream
from neurolm.training.throughput import Throughput
from neurolm.training.training_run import TrainingRun
from tests.llama import write_llama
from tests.tiny import stored_window, write_store

STEPS = 5
SIZES = {"hidden_size": 16, "num_layers": 2, "num_heads": 2}
TOKENIZER = {
    **SIZES,
    "decoder_layers": 1,
    "codebook_size": 16,
    "codebook_dim": 8,
    "embedding_init_std": 0.02,
    "latent_norm": "running",
    "decoder_start": "mean",
}
SETTINGS: dict[str, dict[str, Any]] = {
    "tokenizer": {"model": TOKENIZER},
    "pretrain": {
        "language_model": {**SIZES, "context": 64, "embedding_init_std": 0.3},
        "feature_norm": "first_batch",
        "channel_gain": 2.0,
    },
    "instruct": {"tasks": ["workload", "hmc"], "losses": {"pooled_weight": 0.1, "label_smoothing": 0.1}},
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{stage: (stage, {}) for stage in SETTINGS},
    "tokenizer-silent": ("tokenizer", {"batch.text_size": 0}),
    "pretrain-silent": ("pretrain", {"batch.text_size": 0}),
    "pretrain-llama": ("pretrain", {}),
    "instruct-lora": ("instruct", {"lora": {"rank": 2}}),
}
"""Trainings by name: a stage and what else is set."""


@dataclass
class Record:
    """What one training left behind."""

    metrics: dict[int, dict[str, float]] = field(default_factory=dict)
    start: dict[str, Tensor] = field(default_factory=dict)
    end: dict[str, Tensor] = field(default_factory=dict)


class _Recorder:
    def __init__(self) -> None:
        self.metrics_by_step: dict[int, dict[str, float]] = {}

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.metrics_by_step.setdefault(step, {}).update(values)


def write_sources(out: Path) -> None:
    """A published language model, its text, and windows of three shapes and two data sets, five in the last batch."""
    write_llama(out / "llama")
    (out / "text.txt").write_text("Is this EEG segment of high workload? " * 40)
    train, val = (
        [_window(seed) for seed in range(first, first + number)] for first, number in ((0, 8 * STEPS - 3), (100, 7))
    )
    (out / "store").mkdir()
    write_store(out / "store", {"train": train, "val": val})


def _window(seed: int) -> Any:
    if seed % 3 == 0:
        return stored_window(1, 600, data_set="hmc", label=("W", "N3", "R")[seed // 3 % 3], seed=seed)
    return stored_window(2 + seed % 2, 400, label=("rest", "arithmetic")[seed % 2], seed=seed)


def run_of(case: str, out: Path, overrides: Mapping[str, Any]) -> TrainingRun:
    """Five steps of a stage whose earlier stages' models lie in ``out``."""
    stage, changes = CASES[case]
    values = {
        "out": str(out),
        "data": {"store": str(out / "store")},
        "epochs": 1,
        "validations": 1,
        "batch": {"size": 8, "text_size": 3, "text_length": 8, "micro_size": 2},
        "optimizer": {"learning_rate": 1e-3, "epsilon": 1e-4, "warmup_ratio": 0.0, "clip_norm": 0.5},
        "tracking": {"enabled": False},
    }
    if case == "pretrain-llama":
        changes = {"language_model": {"name_or_path": str(out / "llama")}, "corpus.path": str(out / "text.txt")}
    run = build(STAGES[stage], values | SETTINGS[stage], source="test")
    return override(run, {"run_id": case, **changes, **overrides})


def record(run: TrainingRun, context: RunContext, make_engine: Callable[[Assembly], Engine]) -> Record:
    """Train all steps; weights are complete on rank 0."""
    assembly = assemble(run, context)
    throughput = Throughput(BatchFlops(assembly.stage), context, peak_flops=None)
    engine = make_engine(assembly)
    tracker = _Recorder()
    start = {name: tensor.clone() for name, tensor in engine.weights().tensors}
    steps = range(assembly.schedule.total_steps)
    kept = fit(
        assembly.stage,
        engine,
        (
            assembly.batcher(part)
            for part in read_steps(assembly.windows, assembly.order, steps, context.rank, context.world_size)
        ),
        context,
        tracker,  # type: ignore[arg-type]
        assembly.schedule,
        validate=assembly.validate,
        save=lambda step, metrics: None,
        after_validation=lambda step, metrics: None,
        throughput=throughput,
        profiler=StepProfiler(None, run.folder, context.device),
        guard=NotFiniteGuard(run.not_finite, assembly.stage, engine, context, NullTracker(), run.folder),
    )
    end = {name: tensor.clone() for name, tensor in engine.weights().tensors}
    if isinstance(engine, TorchEngine):
        export(run.folder / "model", assembly.describe(kept, {}), TensorStream.of(end))
    else:
        engine._engine.destroy()  # type: ignore[attr-defined]
    return Record(tracker.metrics_by_step, start, end)


def record_alone(run: TrainingRun) -> Record:
    """One process, plain torch."""
    context = LocalContext()

    def make_engine(assembly: Assembly) -> Engine:
        return TorchEngine(assembly.stage, run.optimizer, assembly.schedule.total_steps, context.device)

    return record(run, context, make_engine)


def worker(rank: int, folder: Path, out: Path, variants: Mapping[str, tuple[str, Mapping[str, Any]]]) -> None:
    """One of two processes: every variant (a stage and overrides); rank 0 leaves their records in ``folder``."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"DS_ACCELERATOR": "cpu", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "PYTHONWARNINGS": "ignore"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    from neurolm.distributed import building
    from neurolm.distributed.deepspeed import DeepSpeedEngine
    from neurolm.distributed.train import building_for

    building.WHOLE_AT_ONCE = 3_000  # so few that tensors are partitioned and gathered again all the time
    for name, (case, overrides) in variants.items():
        run = run_of(case, out, {"workers": 2, "run_id": name, **overrides})
        engine = run.engine
        assert engine.kind == "deepspeed"
        context = ProcessGroupContext(torch.device("cpu"), building_for(engine))

        def make_engine(assembly: Assembly) -> Engine:
            number = assembly.batcher.num_micro_batches
            total = assembly.schedule.total_steps
            return DeepSpeedEngine(assembly.stage, run.optimizer, total, context, engine, number)  # noqa: B023

        found = record(run, context, make_engine)
        if rank == 0:
            torch.save(vars(found), folder / f"{name}.pt")
            print(name, "done", flush=True)
    dist.barrier()
    dist.destroy_process_group()


def relative_difference(one: Tensor, other: Tensor) -> float:
    """Norm of the difference over the norm of the first."""
    return float((one.double() - other.double()).norm() / one.double().norm().clamp(min=1e-30))


def comparable(name: str, tensor: Tensor) -> Tensor:
    """A tensor without the key biases of a fused projection: attention is blind to them, so their gradient is noise."""
    if name.endswith(("c_attn.bias", "qkv.bias")):
        query, _, value = tensor.chunk(3)
        return torch.cat([query, value])
    return tensor
