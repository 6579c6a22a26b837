"""Ray Train: any stage on several workers under DeepSpeed, fed by Ray Data, resumed by run id."""

import functools
import json
import logging
import os
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import ray.train
import torch
from ray.train import RunConfig, UserCallback
from ray.train.torch import TorchTrainer

from neurolm.config import UserError, override
from neurolm.distributed.context import RayContext, StopFlag, Watchdog
from neurolm.distributed.restarts import failure_config, scaling_config, set_environment, torch_config
from neurolm.distributed.stream import OrderedDataConfig, committed_step, step_chunks, worker_steps
from neurolm.eeg.reading import StepWindows
from neurolm.eeg.shards import Store
from neurolm.progress import ProgressBar
from neurolm.tracking import FILE_NAME, start_run
from neurolm.training.assembly import Assembly, reading_plan
from neurolm.training.engine import DeepSpeedEngineConfig, Engine, TorchEngine
from neurolm.training.leakage import check_leakage
from neurolm.training.runs import TrainingRun
from neurolm.training.stopping import Stopped, stop_signals
from neurolm.training.worker import finished, mark_finished, run_key, run_worker

logger = logging.getLogger(__name__)

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
    storage = run.out / "checkpoints"
    (run.folder / MISTAKE).unlink(missing_ok=True)
    set_environment(run)
    trainer = TorchTrainer(
        functools.partial(_worker, run=run, parent=parent),
        torch_config=torch_config(run),
        scaling_config=scaling_config(run),
        run_config=RunConfig(
            name=run.name,
            storage_path=str(storage),
            failure_config=failure_config(run),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
            callbacks=callbacks or [],
            worker_runtime_env={"env_vars": _worker_environment(run)},
        ),
        datasets={"train": functools.partial(step_chunks, storage / run.name, total_steps, plan.batch_size)},
        dataset_config=OrderedDataConfig(plan, run.resources.reader_cpus),
    )
    stop_flag = StopFlag(run)
    stop_flag.clear()
    with stop_signals(stop_flag.set), _ProgressFollower(run) if show_progress else _Nothing():
        try:
            _fit(trainer)
        except ray.train.TrainingFailedError as error:
            if (run.folder / MISTAKE).is_file():
                raise UserError((run.folder / MISTAKE).read_text()) from error
            raise
    if stop_flag.is_set():
        raise Stopped(committed_step(storage / run.name), total_steps)
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
    if run.corpus.path is not None:
        places["corpus.path"] = run.corpus.path
    return override(run, {name: str(place.absolute()) for name, place in places.items()})


def _worker(run: TrainingRun, parent: str | None) -> None:
    """What every worker runs; after a user's mistake a restart would only repeat it."""
    if (run.folder / MISTAKE).is_file():
        raise UserError((run.folder / MISTAKE).read_text())
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    torch.set_num_threads(max(1, int(run.resources.cpus_per_worker)))
    watchdog = Watchdog(run.survival.worker_timeout_s, run.survival.worker_timeout_s + run.survival.start_timeout_s)
    context = RayContext(ray.train.torch.get_device(), StopFlag(run), watchdog)
    tracker = start_run(
        run.tracking, folder=run.folder, name=run.name, run_key=run_key(run), parent=parent, rank=context.rank
    )
    checkpoint = ray.train.get_checkpoint()
    scratch = Path(tempfile.mkdtemp(prefix="neurolm-"))

    def make_engine(assembly: Assembly) -> Engine:
        total_steps = assembly.schedule.total_steps
        if not isinstance(run.engine, DeepSpeedEngineConfig):
            return TorchEngine(assembly.stage, run.optimizer, total_steps, context.device)
        from neurolm.distributed.deepspeed import DeepSpeedEngine

        number = assembly.batcher.num_micro_batches
        return DeepSpeedEngine(assembly.stage, run.optimizer, total_steps, context, run.engine, number)

    def make_stream(assembly: Assembly, start: int) -> Iterator[StepWindows]:
        return worker_steps(ray.train.get_dataset_shard("train"), start, assembly.schedule.total_steps)

    def checkpoint_folder(step: int) -> Path:
        folder = scratch / f"step-{step:08d}"
        folder.mkdir()
        return folder

    try:
        with checkpoint.as_directory() if checkpoint else _Nothing() as folder:
            best = run_worker(
                run,
                context,
                tracker,
                make_engine=make_engine,
                make_stream=make_stream,
                resume_from=Path(folder) if folder else None,
                checkpoint_folder=checkpoint_folder,
            )
    except Stopped:
        tracker.close("KILLED")
        return
    except BaseException as error:
        if isinstance(error, UserError):
            run.folder.mkdir(parents=True, exist_ok=True)
            (run.folder / MISTAKE).write_text(str(error))
        else:
            context.await_restart()
        tracker.close("FAILED")
        raise
    finally:
        watchdog.stop()
    if context.rank == 0:
        mark_finished(run, best)
    tracker.close("FINISHED")


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
