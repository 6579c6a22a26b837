"""One worker's run from config to model folder; `train_locally` is that worker alone, without Ray."""

import json
import logging
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neurolm.config import ConfigError, UserError, as_dict, as_yaml, flatten
from neurolm.progress import ProgressBar
from neurolm.tracking import NullTracker, TeeTracker, Tracker, start_run
from neurolm.training.assembly import Assembly, assemble
from neurolm.training.batches import StepWindows, read_steps
from neurolm.training.context import LocalContext, RunContext
from neurolm.training.engine import Engine, TorchEngine
from neurolm.training.loop import fit
from neurolm.training.runs import InstructRun, TrainingRun, training_digest

logger = logging.getLogger(__name__)

MakeEngine = Callable[[Assembly], Engine]
MakeStream = Callable[[Assembly, int], Iterator[StepWindows]]
"""The windows of a worker from a step on."""


class ResumeError(UserError):
    """A checkpoint that belongs to another config or other data."""


def run_worker(
    run: TrainingRun,
    context: RunContext,
    tracker: Tracker,
    *,
    make_engine: MakeEngine,
    make_stream: MakeStream,
    resume_from: Path | None,
    checkpoint_folder: Callable[[int], Path],
) -> dict[str, float]:
    """Train, validate, keep the chosen weights in ``run.folder/model``; returns the metrics of the weights kept."""
    assembly = assemble(run, context)
    engine = make_engine(assembly)
    best: dict[str, float] = {}
    if resume_from is not None:
        best = _resume(run, assembly, engine, resume_from, context)
    if context.rank == 0:
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / "config.yaml").write_text(as_yaml(run))
        tracker.params(flatten(as_dict(run)) | {"data_digest": assembly.store.digest})

    def after_validation(step: int, metrics: dict[str, float]) -> None:
        """Keep the best weights by validation (instruction tuning) or the latest (tokenizer, pre-training)."""
        if isinstance(run, InstructRun) and best and metrics["score"] <= best["score"]:
            return
        best.clear()
        best.update(metrics, step=float(step))
        weights = engine.weights()
        if context.rank == 0:
            assembly.export(run.folder / "model", weights, best)

    def save(step: int, metrics: dict[str, float]) -> Path:
        folder = checkpoint_folder(step)
        engine.save(folder)
        torch.save(_random_state(), folder / f"random-{context.rank}.pt")
        if context.rank == 0:
            state = {
                "step": step,
                "best": best,
                "training_digest": training_digest(run),
                "data_digest": assembly.store.digest,
            }
            (folder / "neurolm.json").write_text(json.dumps(state, indent=1))
        return folder

    steps = make_stream(assembly, engine.step_count)
    fit(
        assembly.stage,
        engine,
        (assembly.batcher(part) for part in steps),
        context,
        tracker,
        assembly.schedule,
        validate=assembly.validate,
        save=save,
        after_validation=after_validation,
    )
    return best


def train_locally(run: TrainingRun, *, show_progress: bool = True, device: str = "cpu") -> dict[str, float]:
    """Train any stage in this process; running the same run id again resumes it. Raises UserError."""
    if run.engine.kind != "torch":
        raise ConfigError(f"engine.kind: {run.engine.kind} needs Ray Train; set engine.kind=torch, or use ray_jobs/train.py")
    context = LocalContext(device)
    checkpoints = run.folder / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    tracker = start_run(run.tracking, folder=run.folder, name=run.name, run_key=run_key(run))
    bar = ProgressBar(run.name) if show_progress else NullTracker()

    def make_engine(assembly: Assembly) -> Engine:
        return TorchEngine(assembly.stage, run.optimizer, assembly.schedule.total_steps, context.device)

    def make_stream(assembly: Assembly, start: int) -> Iterator[StepWindows]:
        return read_steps(assembly.store, assembly.order, range(start, assembly.schedule.total_steps))

    local = LocalCheckpoints(checkpoints)
    context.report = local.commit  # type: ignore[method-assign]
    try:
        best = run_worker(
            run,
            context,
            TeeTracker([tracker, bar]),
            make_engine=make_engine,
            make_stream=make_stream,
            resume_from=local.latest(),
            checkpoint_folder=local.new,
        )
    except BaseException:
        tracker.close("FAILED")
        raise
    bar.close("FINISHED")
    tracker.close("FINISHED")
    return best


def run_key(run: TrainingRun) -> str:
    """What makes a run the same run for MLflow, however often it is restarted."""
    return f"{run.out.resolve()}/{run.name}/{training_digest(run)}"


class LocalCheckpoints:
    """The checkpoints of a local run: the latest whole one is kept, a half-written one never counts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def new(self, step: int) -> Path:
        """An empty folder to write into."""
        aside = self._folder / f"writing-{step:08d}"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        return aside

    def commit(self, metrics: dict[str, Any], checkpoint: Path | None) -> None:
        """Make a written checkpoint the latest one and delete the one before."""
        if checkpoint is None:
            return
        before = self.latest()
        final = self._folder / checkpoint.name.replace("writing", "step")
        shutil.rmtree(final, ignore_errors=True)
        checkpoint.rename(final)
        if before is not None and before != final:
            shutil.rmtree(before)

    def latest(self) -> Path | None:
        """The checkpoint to resume from."""
        return max(self._folder.glob("step-*"), default=None)


def _resume(run: TrainingRun, assembly: Assembly, engine: Engine, folder: Path, context: RunContext) -> dict[str, float]:
    state = json.loads((folder / "neurolm.json").read_text())
    for name, found in (("training_digest", training_digest(run)), ("data_digest", assembly.store.digest)):
        if state[name] != found:
            what = "another config" if name == "training_digest" else "other data"
            raise ResumeError(
                f"run {run.name!r} in {run.out} was trained with {what} ({name} {state[name]}, now {found}); "
                "use another out or run_id, or delete its folder to start again"
            )
    engine.load(folder)
    _set_random_state(torch.load(folder / f"random-{context.rank}.pt", weights_only=False))
    logger.info("run %s resumes at step %d of %d", run.name, engine.step_count, assembly.schedule.total_steps)
    return dict(state["best"])


def _random_state() -> dict[str, Any]:
    return {"torch": torch.get_rng_state(), "numpy": np.random.get_state(legacy=True), "python": random.getstate()}


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])
