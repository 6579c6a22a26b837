"""Ray Train: any stage on several workers under DeepSpeed, fed by Ray Data, resumed by run id."""

import contextlib
import functools
import json
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import ray.train
import torch
from ray.train import (
    Checkpoint,
    CheckpointConsistencyMode,
    CheckpointUploadMode,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    UserCallback,
)
from ray.train.torch import TorchTrainer

from neurolm.config import UserError, override
from neurolm.distributed.stream import OrderedDataConfig, step_chunks, worker_steps
from neurolm.eeg.reading import StepWindows
from neurolm.eeg.shards import Store
from neurolm.progress import ProgressBar
from neurolm.tracking import FILE_NAME, start_run
from neurolm.training.assembly import Assembly, reading_plan
from neurolm.training.context import ProcessGroupContext
from neurolm.training.engine import DeepSpeedEngineConfig, Engine, TorchEngine
from neurolm.training.leakage import check_leakage
from neurolm.training.run_checkpoint import Choice, RunCheckpoints
from neurolm.training.runs import TrainingRun
from neurolm.training.worker import finished, mark_finished, run_key, run_worker

logger = logging.getLogger(__name__)

RAY_SNAPSHOT = "checkpoint_manager_snapshot.json"
"""Ray Train's list of checkpoints. Ours are chosen by what is in them, and a list that names a deleted one, or was cut
off by a full disk, would keep a run from starting."""
MISTAKE = "mistake.txt"
"""Where a worker leaves the words of a user's mistake for the driver."""


class RayContext(ProcessGroupContext):
    """A Ray Train worker: a process group, and reports that carry checkpoints.

    Training goes on while a checkpoint is brought to its storage; the next report waits for it, so that checkpoints do
    not pile up on the worker's disk.
    """

    def __init__(self, device: torch.device, run: TrainingRun, checkpoints: RunCheckpoints) -> None:
        super().__init__(device)
        self._run, self._checkpoints = run, checkpoints
        self._brought = threading.Event()
        self._brought.set()

    def report(self, metrics: dict[str, Any], checkpoint: Path | None) -> None:
        """Report to Ray Train; with a checkpoint, the parts of all workers are merged into one."""
        self._brought.wait()
        if checkpoint:
            self._brought.clear()
        ray.train.report(
            metrics,
            checkpoint=Checkpoint.from_directory(str(checkpoint)) if checkpoint else None,
            checkpoint_dir_name=self._checkpoints.new_name(metrics["step"]),  # the first worker's counts
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            checkpoint_upload_fn=self._bring,
        )

    def wait_for_commit(self) -> None:
        """Return when Ray Train has heard of every report of every worker: then the checkpoints are whole."""
        ray.train.get_all_reported_checkpoints(consistency_mode=CheckpointConsistencyMode.COMMITTED)

    def _bring(self, checkpoint: Checkpoint, name: str) -> Checkpoint:
        try:
            path = self._checkpoints.commit(Path(checkpoint.path), name)
        except UserError as error:
            _leave_mistake(self._run, error)  # here, because it is not the training thread that fails
            raise
        finally:
            self._brought.set()
        return Checkpoint(path, self._checkpoints.filesystem)


def train(
    run: TrainingRun,
    *,
    parent: str | None = None,
    callbacks: list[UserCallback] | None = None,
    show_progress: bool = True,
) -> dict[str, float]:
    """Train a stage on ``run.workers`` Ray Train workers; the same run id again resumes. Raises UserError."""
    if run.engine.kind == "torch" and run.workers > 1:
        raise UserError(f"engine.kind=torch trains in one process, workers={run.workers}; set engine.kind=deepspeed")
    run = anchored(run)
    check_leakage(run, run.data.allow_leakage)
    if (kept := finished(run)) is not None:
        return kept
    store = Store.open(run.training_store)
    plan = reading_plan(run)
    plan.source(store)  # EEG tokens that are not there are a mistake to hear of before anything is started
    total_steps = plan.total_steps(plan.order(store))
    checkpoints = RunCheckpoints(run.checkpoint_storage, run.name, run.checkpoints.keep)
    checkpoints.forget(RAY_SNAPSHOT)
    (run.folder / MISTAKE).unlink(missing_ok=True)
    trainer = TorchTrainer(
        functools.partial(_worker, run=run, parent=parent),
        scaling_config=ScalingConfig(
            num_workers=run.workers,
            use_gpu=run.resources.gpus_per_worker > 0,
            resources_per_worker=_resources(run),
        ),
        run_config=RunConfig(
            name=run.name,
            storage_path=checkpoints.root,
            storage_filesystem=checkpoints.filesystem,
            failure_config=FailureConfig(max_failures=2),
            callbacks=callbacks or [],
            worker_runtime_env={"env_vars": _worker_environment(run)},
        ),
        datasets={"train": functools.partial(step_chunks, checkpoints, total_steps, plan.batch_size)},
        dataset_config=OrderedDataConfig(plan, run.resources.reader_cpus),
    )
    with _ProgressFollower(run) if show_progress else _Nothing():
        try:
            trainer.fit()
        except ray.train.TrainingFailedError as error:
            if mistake := _mistake_of(run, error):
                raise UserError(mistake) from error
            raise
    kept = finished(run)
    assert kept is not None, f"{run.folder}: the run ended without its last record"
    return kept


R = TypeVar("R", bound=TrainingRun)


def anchored(run: R) -> R:
    """The run with absolute folders: workers have working directories of their own."""
    names = ("root", "pretraining_root", "store", "pretraining_store", "token_store", "pretraining_token_store")
    places = {f"data.{name}": place for name in names if (place := getattr(run.data, name)) is not None}
    places |= {name: place for name in ("out", "tokenizer", "pretrained") if (place := getattr(run, name, None))}
    if run.checkpoints.storage is not None and "://" not in run.checkpoints.storage:
        places["checkpoints.storage"] = Path(run.checkpoints.storage)
    if run.corpus.path is not None:
        places["corpus.path"] = run.corpus.path
    return override(run, {name: str(place.absolute()) for name, place in places.items()})


def _worker(run: TrainingRun, parent: str | None) -> None:
    """What every worker runs; after a user's mistake a restart would only repeat it."""
    if (run.folder / MISTAKE).is_file():
        raise UserError((run.folder / MISTAKE).read_text())
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    torch.set_num_threads(max(1, int(run.resources.cpus_per_worker)))
    checkpoints = RunCheckpoints(run.checkpoint_storage, run.name, run.checkpoints.keep)
    context = RayContext(ray.train.torch.get_device(), run, checkpoints)
    tracker = start_run(
        run.tracking, folder=run.folder, name=run.name, run_key=run_key(run), parent=parent, rank=context.rank
    )

    def make_engine(assembly: Assembly) -> Engine:
        total_steps = assembly.schedule.total_steps
        if not isinstance(run.engine, DeepSpeedEngineConfig):
            return TorchEngine(assembly.stage, run.optimizer, total_steps, context.device)
        from neurolm.distributed.deepspeed import DeepSpeedEngine

        number = assembly.batcher.num_micro_batches
        return DeepSpeedEngine(assembly.stage, run.optimizer, total_steps, context, run.engine, number)

    def make_stream(assembly: Assembly, start: int) -> Iterator[StepWindows]:
        return worker_steps(ray.train.get_dataset_shard("train"), start, assembly.schedule.total_steps)

    try:
        choice = checkpoints.chosen()
        if choice.warning:
            tracker.tags({"damaged_checkpoint": choice.warning})
        with _shared_copy(checkpoints, choice) as folder:
            best = run_worker(
                run,
                context,
                tracker,
                make_engine=make_engine,
                make_stream=make_stream,
                checkpoints=checkpoints,
                resume_from=Path(folder) if folder else None,
            )
        context.wait_for_commit()
    except BaseException as error:
        if isinstance(error, UserError):
            _leave_mistake(run, error)
        with contextlib.suppress(OSError):  # on a full disk the error that says so matters more
            tracker.close("FAILED")
        raise
    if context.rank == 0:
        mark_finished(run, best)
    tracker.close("FINISHED")


def _shared_copy(checkpoints: RunCheckpoints, choice: Choice) -> Any:
    """The chosen checkpoint as a folder, downloaded once for all workers of a machine if it lies elsewhere."""
    if choice.name is None:
        return _Nothing()
    return Checkpoint(f"{checkpoints.path}/{choice.name}", checkpoints.filesystem).as_directory()


def _leave_mistake(run: TrainingRun, error: UserError) -> None:
    with contextlib.suppress(OSError):  # where there is no room, the driver reads it from Ray's error
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / MISTAKE).write_text(str(error))


def _mistake_of(run: TrainingRun, error: Exception) -> str | None:
    """The words of the user's mistake that made a run fail, if it was one."""
    path = run.folder / MISTAKE
    if path.is_file() and (words := path.read_text()):
        return words
    failures = getattr(error, "worker_failures", {}).values()
    causes = [getattr(failure, "_base_exc", failure) for failure in failures]
    return next((str(cause) for cause in causes if isinstance(cause, UserError)), None)


def _resources(run: TrainingRun) -> dict[str, float]:
    resources = {"CPU": run.resources.cpus_per_worker}
    return resources | ({"GPU": run.resources.gpus_per_worker} if run.resources.gpus_per_worker else {})


def _worker_environment(run: TrainingRun) -> dict[str, str]:
    threads = str(max(1, int(run.resources.cpus_per_worker)))
    names = ("NEUROLM_HOME", "NEUROLM_GIT_COMMIT", "DS_ACCELERATOR")
    passed = {name: os.environ[name] for name in names if name in os.environ}
    if not run.resources.gpus_per_worker:
        passed.setdefault("DS_ACCELERATOR", "cpu")
    return {
        "OMP_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONWARNINGS": "ignore::FutureWarning",
    } | passed


class _Nothing:
    """A context manager that gives None."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *details: object) -> None:
        return None


class _ProgressFollower:
    """Draws the bar of a run that other processes train, from the metrics file that rank 0 writes."""

    def __init__(self, run: TrainingRun) -> None:
        self._bar = ProgressBar(run.name)
        self._path = run.folder / FILE_NAME
        self._offset = self._path.stat().st_size if self._path.exists() else 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *details: object) -> None:
        self._stop.set()
        self._thread.join()
        self._read()
        self._bar.close("FINISHED")

    def _follow(self) -> None:
        while not self._stop.wait(0.5):
            self._read()

    def _read(self) -> None:
        if not self._path.exists():
            return
        with self._path.open() as file:
            file.seek(self._offset)
            lines = file.read()
        whole = lines[: lines.rfind("\n") + 1]
        self._offset += len(whole.encode())
        for line in whole.splitlines():
            record = json.loads(line)
            if record["event"] == "metrics":
                self._bar.metrics(record["step"], {name: float(value) for name, value in record["values"].items()})
