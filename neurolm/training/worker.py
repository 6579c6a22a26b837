"""One worker's run from config to model folder; `train_locally` is that worker alone, without Ray."""

import contextlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from neurolm.config import ConfigError, UserError, as_dict, as_yaml, flatten
from neurolm.eeg.reading import StepWindows, read_steps
from neurolm.eeg.shards import Store
from neurolm.progress import ProgressBar
from neurolm.tracking import NullTracker, Status, TeeTracker, Tracker, start_run
from neurolm.training.assembly import Assembly, assemble
from neurolm.training.checkpoint import model_digest
from neurolm.training.context import LocalContext, RunContext
from neurolm.training.devices import device_name, peak_flops, warn_of_emulated_products
from neurolm.training.engine import Engine, TorchEngine
from neurolm.training.flops import BatchFlops
from neurolm.training.full_disk import clear_about_space
from neurolm.training.keeping import Keeper
from neurolm.training.leakage import allowed_reason, check_leakage
from neurolm.training.loop import fit
from neurolm.training.model_export import ModelDescription, export
from neurolm.training.nodes import Nodes
from neurolm.training.not_finite import NotFiniteGuard, RollBack
from neurolm.training.profiling import StepProfiler
from neurolm.training.provenance import provenance
from neurolm.training.run_checkpoint import Part, RunCheckpoints
from neurolm.training.runs import InstructRun, PretrainRun
from neurolm.training.stopping import Stopped, stop_signals
from neurolm.training.throughput import Throughput
from neurolm.training.training_run import TrainingRun, training_digest, without_raw_places
from neurolm.training.worker_log import WorkerLog

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
    checkpoints: RunCheckpoints,
    resume_from: Path | None,
) -> dict[str, float]:
    """Train, validate, keep the chosen weights in ``run.folder/model``; returns the metrics of the weights kept."""
    assembly = assemble(run, context)
    peak = run.resources.peak_flops or peak_flops(device_name(context.device), run.precision)
    if context.rank == 0:
        warn_of_emulated_products(context.device, run.precision)
    run.folder.mkdir(parents=True, exist_ok=True)
    nodes = Nodes(context, run.folder) if run.tracking.system_metrics else None
    throughput = Throughput(BatchFlops(assembly.stage), context, peak, nodes)
    engine = make_engine(assembly)
    best: dict[str, float] = {}
    keeper = None
    if isinstance(run, InstructRun):
        keeper = Keeper(run.folder, run.keep, run.patience, run.tasks, best)
    skipped: list[dict[str, Any]] = []
    changed: list[dict[str, Any]] = []
    language_before: dict[str, float] = {}
    if resume_from is not None:
        part, news = _resume(run, assembly, engine, resume_from)
        best |= part.best
        skipped += part.history["skipped_steps"]
        changed += part.history["changed"] + news
        if keeper is not None:
            keeper.resume(part.history.get("validations", []))
        language_before |= part.history.get("language_before", {})
    else:
        assembly.stage.eval()
        language_before |= assembly.language()
        assembly.stage.settle()
    guard = NotFiniteGuard(run.not_finite, assembly.stage, engine, context, tracker, run.folder, skipped)
    if context.rank == 0:
        if best and not (run.folder / "model").is_dir():
            checkpoints.fetch_model(run.folder / "model")
        shared = without_raw_places(run)
        (run.folder / "config.yaml").write_text(as_yaml(shared))
        settings = flatten(as_dict(shared)) | provenance(context) | {"data_digest": assembly.store.digest}
        for name, words in assembly.readings.items():
            logger.info("run %s reads of data set %s, in all its epochs, %s", run.name, name, words)
            settings[f"readings.{name}"] = words
        tracker.params({name: value for name, value in settings.items() if value is not None})
        if resume_from is None and language_before:
            tracker.metrics(0, {f"before/{name}": value for name, value in language_before.items()})
        if reason := allowed_reason(run.data.allow_leakage, run.earlier_model):
            tracker.tags({"allow_leakage": reason})
        if changed:
            tracker.tags({"resumed_with_changed": json.dumps(changed)})

    def history() -> dict[str, Any]:
        return {"skipped_steps": guard.skipped, "changed": changed, "language_before": language_before}

    def described(metrics: Mapping[str, float]) -> ModelDescription:
        return assembly.describe(metrics, {name: what for name, what in history().items() if what})

    def after_validation(step: int, metrics: dict[str, float]) -> bool:
        """Keep what instruction tuning chooses by validation, of other stages the latest; returns whether to end."""
        if alarms := run.alarms(metrics):
            logger.warning("run %s, step %d: %s", run.name, step, "; ".join(alarms))
            tracker.tags({"alarm": f"step {step}: {'; '.join(alarms)}"})
        if keeper is None:
            best.clear()
            best.update(metrics, step=float(step))
        is_wanted = keeper is None or keeper.hears(step, metrics, run.task_scores(metrics))
        place = run.folder / "model" if keeper is None else keeper.place(step)
        with clear_about_space(f"model folder {place}", run.folder) if context.rank == 0 else contextlib.nullcontext():
            if is_wanted:
                weights = engine.weights()
                if context.rank == 0:
                    export(place, described({**metrics, "step": float(step)}), weights)
                else:
                    weights.let_pass()
            is_new = keeper is None or keeper.settle(context.rank == 0)
            if is_new and context.rank == 0:
                checkpoints.publish_model(run.folder / "model")
        return keeper is not None and keeper.is_over

    def save(step: int, metrics: dict[str, float]) -> Path:
        guard.refuse_broken_weights_at(step)
        folder = checkpoints.scratch(step, context.rank)
        try:
            with clear_about_space(f"checkpoint of step {step} of run {run.name}", folder, checkpoints.part_bytes):
                engine.save(folder)
                known = history() | ({} if keeper is None else {"validations": keeper.validations})
                Part(context.rank, context.world_size, step, origin, best, known).write(folder)
                if context.rank == 0:
                    described(metrics | {"step": float(step)}).save(folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # room for what is written next
            raise
        return folder

    origin = made_from(run)
    steps = make_stream(assembly, engine.step_count)
    fit(
        assembly.stage,
        engine,
        (assembly.batcher(part) for part in steps),
        context,
        tracker,
        assembly.schedule,
        throughput=throughput,
        profiler=StepProfiler(run.profile if context.rank == 0 else None, run.folder, context.device),
        validate=assembly.validate,
        save=save,
        after_validation=after_validation,
        guard=guard,
    )
    if keeper is not None and keeper.validations and context.rank == 0:
        keeper.write()
    return best


def train_locally(run: TrainingRun, *, show_progress: bool = True, device: str = "cpu") -> dict[str, float]:
    """Train any stage in this process; running the same run id again resumes it. Raises UserError, Stopped."""
    if run.engine.kind != "torch":
        raise ConfigError(f"engine.kind: {run.engine.kind} needs Ray Train; use engine.kind=torch or ray_jobs/train.py")
    check_leakage(run, run.data.allow_leakage)
    if (kept := finished(run)) is not None:
        return kept
    context = LocalContext(device)
    checkpoints = RunCheckpoints(run.checkpoint_storage, run.name, run.checkpoints.keep)
    tracker = start_run(run.tracking, folder=run.folder, name=run.name, run_key=run_key(run))
    bar: Tracker = ProgressBar(run.name) if show_progress else NullTracker()
    log = WorkerLog(run.folder, run.name, context.rank, context.world_size)

    def make_engine(assembly: Assembly) -> Engine:
        return TorchEngine(assembly.stage, run.optimizer, assembly.schedule.total_steps, context.device)

    def make_stream(assembly: Assembly, start: int) -> Iterator[StepWindows]:
        return read_steps(assembly.windows, assembly.order, range(start, assembly.schedule.total_steps))

    def report(metrics: dict[str, Any], checkpoint: Path | None) -> None:
        if checkpoint is not None:
            checkpoints.commit(checkpoint, checkpoints.new_name(metrics["step"]))

    context.report = report  # type: ignore[method-assign]

    def train_from_checkpoint() -> dict[str, float]:
        choice = checkpoints.choose()
        if choice.warning:
            tracker.tags({"damaged_checkpoint": choice.warning})
        with checkpoints.opened(choice) as folder:
            return run_worker(
                run,
                context,
                TeeTracker([tracker, bar, log]),
                make_engine=make_engine,
                make_stream=make_stream,
                checkpoints=checkpoints,
                resume_from=folder,
            )

    try:
        with stop_signals(context.stop):
            while True:
                try:
                    best = train_from_checkpoint()
                    break
                except RollBack as error:
                    logger.warning("run %s: %s", run.name, error)
    except BaseException as error:
        status: Status = "KILLED" if isinstance(error, Stopped | KeyboardInterrupt) else "FAILED"
        with contextlib.suppress(OSError):  # on a full disk the error that says so matters more
            log.close(status)
            bar.close(status)
            tracker.close(status)
        raise
    mark_finished(run, best)
    log.close("FINISHED")
    bar.close("FINISHED")
    tracker.close("FINISHED")
    return best


def run_key(run: TrainingRun) -> str:
    """What makes a run the same run for MLflow, however often it is restarted."""
    return f"{run.out.resolve()}/{run.name}/{training_digest(run)}"


def _resume(run: TrainingRun, assembly: Assembly, engine: Engine, folder: Path) -> tuple[Part, list[dict[str, Any]]]:
    """Load a whole checkpoint, of whatever number of workers; where it stood, and what has changed since by leave."""
    part = Part.read(folder)
    changed = refuse_other_origin(run, part.made_from)
    engine.load(folder)
    logger.info("run %s resumes at step %d of %d", run.name, engine.step_count, assembly.schedule.total_steps)
    return part, [{"step": part.step, **changed}] if changed else []


def made_from(run: TrainingRun) -> dict[str, str]:
    """Digests of everything a run's weights depend on: its settings, its data, and the model it starts from."""
    origin = {"config": training_digest(run), "data": Store.open(run.training_store).digest}
    if isinstance(run, PretrainRun):
        origin["tokenizer"] = model_digest(run.tokenizer_folder)
    if isinstance(run, InstructRun):
        origin["pretrained model"] = model_digest(run.pretrained_folder)
    return origin


def refuse_other_origin(run: TrainingRun, origin: dict[str, str]) -> dict[str, str]:
    """A run id means one run. What ``resume.allow_changed`` allows is returned: the digests before and now.

    Raises:
        ResumeError: settings, data or the starting model have changed.
    """
    changed = {name: f"{origin.get(name)} -> {value}" for name, value in made_from(run).items()
               if origin.get(name) != value}  # fmt: skip
    if refused := [name for name in changed if name not in run.resume.allow_changed]:
        raise ResumeError(
            f"run {run.name!r} in {run.out} was made from another {' and another '.join(refused)}; use another out or "
            f"run_id, or delete {run.folder} and {run.name} in {run.checkpoint_storage} to start again. To go on with "
            f"the change, on record: resume.allow_changed=[{', '.join(refused)}]"
        )
    return changed


def finished(run: TrainingRun) -> dict[str, float] | None:
    """The metrics of a finished run; None if it has to be trained, or went on from changes. Raises ResumeError."""
    path = run.folder / "finished.json"
    if not path.is_file():
        return None
    record = json.loads(path.read_text())
    changed = refuse_other_origin(run, record["made_from"])
    return None if changed else dict(record["kept"])


def mark_finished(run: TrainingRun, kept: dict[str, float]) -> None:
    """Record that a run reached its end, from what, and the metrics of the weights that were kept."""
    (run.folder / "finished.json").write_text(json.dumps({"kept": kept, "made_from": made_from(run)}, indent=1))
