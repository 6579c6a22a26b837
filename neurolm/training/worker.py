"""One worker's run from config to model folder; `train_locally` is that worker alone, without Ray."""

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from neurolm.config import ConfigError, UserError, as_dict, as_yaml, flatten
from neurolm.eeg.reading import StepWindows, read_steps
from neurolm.eeg.shards import Store
from neurolm.progress import ProgressBar
from neurolm.tracking import NullTracker, TeeTracker, Tracker, start_run
from neurolm.training.assembly import Assembly, assemble
from neurolm.training.checkpoint import model_digest
from neurolm.training.context import LocalContext, RunContext
from neurolm.training.engine import Engine, TorchEngine
from neurolm.training.leakage import allowed_reason, check_leakage
from neurolm.training.loop import fit
from neurolm.training.model_export import export
from neurolm.training.runs import InstructRun, PretrainRun, TrainingRun, training_digest, without_raw_places

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
        shared = without_raw_places(run)
        (run.folder / "config.yaml").write_text(as_yaml(shared))
        settings = flatten(as_dict(shared)) | {"data_digest": assembly.store.digest}
        tracker.params({name: value for name, value in settings.items() if value is not None})
        if reason := allowed_reason(run.data.allow_leakage, run.earlier_model):
            tracker.tags({"allow_leakage": reason})

    def after_validation(step: int, metrics: dict[str, float]) -> None:
        """Keep the best weights by validation (instruction tuning) or the latest (tokenizer, pre-training)."""
        if alarms := run.alarms(metrics):
            logger.warning("run %s, step %d: %s", run.name, step, "; ".join(alarms))
            tracker.tags({"alarm": f"step {step}: {'; '.join(alarms)}"})
        if isinstance(run, InstructRun) and best and metrics["score"] <= best["score"]:
            return
        best.clear()
        best.update(metrics, step=float(step))
        weights = engine.weights()
        if context.rank == 0:
            export(run.folder / "model", assembly.describe(best), weights)
        else:
            weights.let_pass()

    def save(step: int, metrics: dict[str, float]) -> Path:
        folder = checkpoint_folder(step)
        engine.save(folder)
        torch.save(torch.get_rng_state(), folder / f"random-{context.rank}.pt")
        if context.rank == 0:
            state = {"step": step, "best": best, "made_from": made_from(run)}
            (folder / "neurolm.json").write_text(json.dumps(state, indent=1))
            assembly.describe(metrics | {"step": float(step)}).save(folder)
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
        raise ConfigError(f"engine.kind: {run.engine.kind} needs Ray Train; use engine.kind=torch or ray_jobs/train.py")
    check_leakage(run, run.data.allow_leakage)
    if (kept := finished(run)) is not None:
        return kept
    context = LocalContext(device)
    checkpoints = run.folder / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    tracker = start_run(run.tracking, folder=run.folder, name=run.name, run_key=run_key(run))
    bar: Tracker = ProgressBar(run.name) if show_progress else NullTracker()

    def make_engine(assembly: Assembly) -> Engine:
        return TorchEngine(assembly.stage, run.optimizer, assembly.schedule.total_steps, context.device)

    def make_stream(assembly: Assembly, start: int) -> Iterator[StepWindows]:
        return read_steps(assembly.windows, assembly.order, range(start, assembly.schedule.total_steps))

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
        bar.close("FAILED")
        tracker.close("FAILED")
        raise
    mark_finished(run, best)
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


def _resume(
    run: TrainingRun, assembly: Assembly, engine: Engine, folder: Path, context: RunContext
) -> dict[str, float]:
    state = json.loads((folder / "neurolm.json").read_text())
    refuse_other_origin(run, state["made_from"])
    engine.load(folder)
    torch.set_rng_state(torch.load(folder / f"random-{context.rank}.pt", weights_only=True))
    logger.info("run %s resumes at step %d of %d", run.name, engine.step_count, assembly.schedule.total_steps)
    return dict(state["best"])


def made_from(run: TrainingRun) -> dict[str, str]:
    """Digests of everything a run's weights depend on: its settings, its data, and the model it starts from."""
    origin = {"config": training_digest(run), "data": Store.open(run.training_store).digest}
    if isinstance(run, PretrainRun):
        origin["tokenizer"] = model_digest(run.tokenizer_folder)
    if isinstance(run, InstructRun):
        origin["pretrained model"] = model_digest(run.pretrained_folder)
    return origin


def refuse_other_origin(run: TrainingRun, origin: dict[str, str]) -> None:
    """A run id means one run. Raises ResumeError where settings, data or the starting model have changed."""
    changed = [name for name, value in made_from(run).items() if origin.get(name) != value]
    if changed:
        raise ResumeError(
            f"run {run.name!r} in {run.out} was made from another {' and another '.join(changed)}; use another out or "
            f"run_id, or delete {run.folder} and {run.out / 'checkpoints' / run.name} to start again"
        )


def finished(run: TrainingRun) -> dict[str, float] | None:
    """The metrics of a finished run; None if it has to be trained. Raises ResumeError."""
    path = run.folder / "finished.json"
    if not path.is_file():
        return None
    record = json.loads(path.read_text())
    refuse_other_origin(run, record["made_from"])
    return dict(record["kept"])


def mark_finished(run: TrainingRun, kept: dict[str, float]) -> None:
    """Record that a run reached its end, from what, and the metrics of the weights that were kept."""
    (run.folder / "finished.json").write_text(json.dumps({"kept": kept, "made_from": made_from(run)}, indent=1))
