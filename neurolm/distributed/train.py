"""Ray Train: any stage on several workers under DeepSpeed, fed by Ray Data, resumed by run id."""

import contextlib
import functools
import json
import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import ray.train
import torch
from ray.train import Checkpoint, RunConfig, UserCallback
from ray.train.torch import TorchTrainer

from neurolm.config import UserError, override
from neurolm.distributed.context import RayContext, StopFlag, Watchdog
from neurolm.distributed.restarts import (
    failure_config,
    refuse_too_few_cpus,
    scaling_config,
    set_environment,
    torch_config,
)
from neurolm.distributed.stream import OrderedDataConfig, step_chunks, worker_steps
from neurolm.eeg.reading import StepWindows
from neurolm.eeg.shards import Store
from neurolm.progress import ProgressBar
from neurolm.tracking import FILE_NAME, TeeTracker, start_run
from neurolm.training.assembly import Assembly, reading_plan
from neurolm.training.deepspeed_config import DeepSpeedEngineConfig
from neurolm.training.engine import Engine, EngineConfig, TorchEngine
from neurolm.training.leakage import check_leakage
from neurolm.training.run_checkpoint import Choice, RunCheckpoints
from neurolm.training.stopping import Stopped, stop_signals
from neurolm.training.training_run import TrainingRun
from neurolm.training.worker import finished, mark_finished, run_key, run_worker
from neurolm.training.worker_log import WorkerLog

logger = logging.getLogger(__name__)

RAY_SNAPSHOT = "checkpoint_manager_snapshot.json"
"""Ray Train's list of checkpoints. Ours are chosen by what is in them, and a list that names a deleted one, or was cut
off by a full disk, would keep a run from starting."""
MISTAKE = "mistake.txt"
"""Where a worker leaves the words of a user's mistake for the driver."""


def train(
    run: TrainingRun,
    *,
    parent: str | None = None,
    callbacks: list[UserCallback] | None = None,
    show_progress: bool = True,
) -> dict[str, float]:
    """Train a stage on ``run.workers`` Ray Train workers; the same run id again resumes.

    Raises:
        UserError: something is wrong with settings, data or the model to start from.
        Stopped: this process was asked to stop (SIGTERM, SIGINT), and the run has.
    """
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
    refuse_too_few_cpus(run)
    set_environment(run)
    trainer = TorchTrainer(
        functools.partial(_worker, run=run, parent=parent),
        torch_config=torch_config(run),
        scaling_config=scaling_config(run),
        run_config=RunConfig(
            name=run.name,
            storage_path=checkpoints.root,
            storage_filesystem=checkpoints.filesystem,
            failure_config=failure_config(run),
            callbacks=callbacks or [],
            worker_runtime_env={"env_vars": _worker_environment(run)},
        ),
        datasets={"train": functools.partial(step_chunks, checkpoints, total_steps, plan.batch_size)},
        dataset_config=OrderedDataConfig(plan, run.resources.reader_cpus),
    )
    stop_flag = StopFlag(run)
    stop_flag.clear()
    with stop_signals(stop_flag.set), _ProgressFollower(run) if show_progress else nullcontext():
        try:
            _fit(trainer)
        except ray.train.TrainingFailedError as error:
            if mistake := _mistake_of(run, error):
                raise UserError(mistake) from error
            raise
    if stop_flag.is_set():
        raise Stopped(checkpoints.newest_step(), total_steps)
    kept = finished(run)
    assert kept is not None, f"{run.folder}: the run ended without its last record"
    return kept


def _fit(trainer: TorchTrainer) -> None:
    """Let a thread wait for the run: Ray Train would take SIGINT over, and end the run where it stands."""
    if threading.current_thread() is not threading.main_thread():
        trainer.fit()
        return
    failures: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:
            failures.append(error)

    waiting = threading.Thread(target=fit, daemon=True)
    waiting.start()
    waiting.join()
    if failures:
        raise failures[0]


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
    torch.set_num_threads(run.resources.threads)
    watchdog = Watchdog(run.survival.worker_timeout_s, run.survival.worker_timeout_s + run.survival.start_timeout_s)
    checkpoints = RunCheckpoints(run.checkpoint_storage, run.name, run.checkpoints.keep)

    def leave_mistake(error: UserError) -> None:
        _leave_mistake(run, error)

    device, building = ray.train.torch.get_device(), building_for(run.engine)
    context = RayContext(device, building, checkpoints, leave_mistake, StopFlag(run), watchdog)
    tracker = start_run(
        run.tracking, folder=run.folder, name=run.name, run_key=run_key(run), parent=parent, rank=context.rank
    )
    log = WorkerLog(run.folder, run.name, context.rank, context.world_size)

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
                TeeTracker([tracker, log]),
                make_engine=make_engine,
                make_stream=make_stream,
                checkpoints=checkpoints,
                resume_from=Path(folder) if folder else None,
            )
        context.wait_for_commit()
    except Stopped:
        context.wait_for_commit()
        log.close("KILLED")
        tracker.close("KILLED")
        return
    except BaseException as error:
        if isinstance(error, UserError):
            _leave_mistake(run, error)
        else:
            context.await_restart()
        with contextlib.suppress(OSError):  # on a full disk the error that says so matters more
            log.close("FAILED")
            tracker.close("FAILED")
        raise
    finally:
        watchdog.stop()
    if context.rank == 0:
        mark_finished(run, best)
    log.close("FINISHED")
    tracker.close("FINISHED")


def building_for(engine: EngineConfig) -> Callable[[], AbstractContextManager[None]]:
    """What a worker of such an engine builds its model under."""
    if not isinstance(engine, DeepSpeedEngineConfig) or not engine.partitions_weights:
        return nullcontext
    from neurolm.distributed.building import partitioned

    return functools.partial(partitioned, engine)


def _shared_copy(checkpoints: RunCheckpoints, choice: Choice) -> Any:
    """The chosen checkpoint as a folder, downloaded once for all workers of a machine if it lies elsewhere."""
    if choice.name is None:
        return nullcontext()
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


def _worker_environment(run: TrainingRun) -> dict[str, str]:
    names = ("NEUROLM_HOME", "NEUROLM_GIT_COMMIT", "DS_ACCELERATOR")
    passed = {name: os.environ[name] for name in names if name in os.environ}
    if not run.resources.gpus_per_worker:
        passed.setdefault("DS_ACCELERATOR", "cpu")
    return {
        "OMP_NUM_THREADS": str(run.resources.threads),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONWARNINGS": "ignore::FutureWarning",
    } | passed


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
