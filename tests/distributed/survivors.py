"""Small runs that are hurt on purpose: the runs, a witness in Ray Train's controller, what to measure afterwards."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray.train
from ray.train.v2._internal.execution.callback import ReportCallback, WorkerCallback, WorkerGroupCallback

from neurolm.config import build
from neurolm.eeg.reading import StepWindows
from neurolm.tracking import FILE_NAME, read_curves
from neurolm.training.batches import Batcher, StepBatch
from neurolm.training.runs import STAGES
from neurolm.training.training_run import TrainingRun
from tests.tiny import tiny_tokenizer_settings, write_tiny_store

NUM_STEPS, STEPS_PER_EPOCH, SAVED_EVERY = 60, 10, 5
MEASURED = (
    *("seconds_per_step", "data_wait_share", "validation_seconds", "checkpoint"),
    *("throughput/", "memory/", "system/"),
)
"""How the names begin of what is measured and may differ; losses, digests of windows and validations may not."""
TINY = {"hidden_size": 16, "num_layers": 1, "num_heads": 2}
PATIENCE_S = 600.0


def write_store(folder: Path) -> Path:
    """Ten steps of eight windows in two shapes and two classes."""
    return write_tiny_store(folder, num_windows=77, mixed_shapes=True, labels=("rest", "arithmetic", "arithmetic"))


def make_run(stage: str, out: Path, store: Path, *, workers: int = 2, **changes: Any) -> TrainingRun:
    """A run of six training epochs with a checkpoint in every half of one; with dropout where a stage has it."""
    values = tiny_tokenizer_settings(out, store)
    values |= {
        "stage": stage,
        "epochs": NUM_STEPS // STEPS_PER_EPOCH,
        "validations": 3,
        "checkpoints": {"every_steps": SAVED_EVERY},
        "workers": workers,
        "engine": {"kind": "deepspeed", "zero_stage": 2},
        "survival": {"max_failures": 2, "worker_timeout_s": 120},
    }
    values["data"] = {"store": str(store), "sets": {"workload": {"layout": "workload"}}}
    if stage != "tokenizer":
        del values["model"]
    values |= {
        "tokenizer": {},
        "pretrain": {"language_model": {**TINY, "context": 64, "dropout": 0.1}, "spatial_embedding_init_std": 0.02},
        "instruct": {"tasks": ["workload"]},
    }[stage]
    return build(STAGES[stage], values | changes, source="test")


class Witness(WorkerGroupCallback, ReportCallback):
    """Writes down, in Ray Train's controller, which processes are the workers and what was committed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def after_worker_group_training_start(self, worker_group: Any) -> None:
        workers = {worker.distributed_context.world_rank: worker.metadata for worker in worker_group.get_workers()}
        self._write("start", pids=[workers[rank].pid for rank in sorted(workers)])

    def after_report(self, training_report: Any, metrics: list[dict[str, Any]]) -> None:
        if training_report.checkpoint is not None:
            self._write("commit", step=metrics[0]["step"])

    def _write(self, event: str, **fields: Any) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"event": event, "time": time.time(), **fields}) + "\n")

    def events(self, event: str) -> list[dict[str, Any]]:
        """What was written down so far."""
        if not self.path.exists():
            return []
        records = [json.loads(line) for line in self.path.read_text().splitlines()]
        return [record for record in records if record["event"] == event]


class Slow(WorkerCallback):
    """Makes every step of every worker take longer; a given step of rank 1, once, for ever."""

    def __init__(self, seconds: float, *, hangs_at: int | None = None, marker: Path = Path()) -> None:
        self.seconds, self.hangs_at, self.marker = seconds, hangs_at, marker

    def after_init_train_context(self) -> None:
        collate = Batcher.__call__

        def slowly(batcher: Batcher, part: StepWindows) -> StepBatch:
            time.sleep(self.seconds)
            is_second = ray.train.get_context().get_world_rank() == 1
            if is_second and part.step == self.hangs_at and not self.marker.exists():
                self.marker.write_text(str(time.time()))
                time.sleep(10**6)
            return collate(batcher, part)

        Batcher.__call__ = slowly  # type: ignore[method-assign]


class Trace:
    """The steps that a run has logged, in the order in which it did them."""

    def __init__(self, run: TrainingRun) -> None:
        self.path = run.folder / FILE_NAME

    def steps(self) -> list[tuple[int, float]]:
        """Step and time of every training step, repeated ones too."""
        if not self.path.exists():
            return []
        lines = [line for line in self.path.read_text().splitlines(keepends=True) if line.endswith("}\n")]
        records = [json.loads(line) for line in lines]
        return [
            (record["step"], record["time"])
            for record in records
            if record["event"] == "metrics" and "loss" in record["values"]
        ]

    def lost_steps(self) -> int:
        """How many steps were done more than once."""
        steps = [step for step, _ in self.steps()]
        return len(steps) - len(set(steps))

    def recovery_s(self, hurt_at: float) -> float:
        """Seconds from a blow to the end of the first step of the next start of the run."""
        times = [when for _, when in self.steps()]
        starts = [json.loads(line)["time"] for line in self.path.read_text().splitlines() if '"event": "start"' in line]
        begun = next(start for start in starts if start > hurt_at)
        return round(next(when for when in times if when > begun) - hurt_at, 1)


def wait_for(what: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """The first true answer to a question that is asked ten times a second."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        if answer := what():
            return answer
        time.sleep(0.1)
    raise AssertionError(f"not true after {patience_s:g} s: {what}")


@contextmanager
def blows(run: TrainingRun, witness: Witness, plan: list[tuple[int, int, signal.Signals]]) -> Iterator[list[float]]:
    """While the run trains, send worker ``rank`` a signal once the run has gone past ``step``; gives the times."""
    times: list[float] = []
    trace, is_over = Trace(run), threading.Event()

    def strike() -> None:
        for number, (step, rank, blow) in enumerate(plan):
            while not (trace.steps() and trace.steps()[-1][0] >= step and len(witness.events("start")) > number):
                if is_over.wait(0.02):
                    return
            times.append(time.time())
            os.kill(witness.events("start")[-1]["pids"][rank], blow)
            while trace.steps()[-1][0] >= step and not is_over.wait(0.02):  # until the run has gone back
                if len(witness.events("start")) > number + 1:
                    break

    thread = threading.Thread(target=strike)
    thread.start()
    try:
        yield times
    finally:
        is_over.set()
        thread.join()


def exact_curves(run: TrainingRun) -> dict[str, list[tuple[int, float]]]:
    """Everything that a run logged except what was measured."""
    curves = read_curves(run.folder / FILE_NAME)
    assert [step for step, _ in curves["window_digest"]] == list(range(1, NUM_STEPS + 1))
    assert len({digest for _, digest in curves["window_digest"]}) == NUM_STEPS
    return {name: curve for name, curve in curves.items() if not name.startswith(MEASURED)}
