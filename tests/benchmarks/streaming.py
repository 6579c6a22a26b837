"""Windows a second through the stream of training to a loop that does nothing; prints JSON.

    python tests/benchmarks/streaming.py --windows 20000 --shape 23x10 --dtype float16 --batch 64 --workers 1 2

A store of noise with the spectrum of EEG is written to a temporary folder. ``reader`` is the Ray Data actor's own work,
called in this process: decoding row groups and putting steps together. ``stream`` is the whole way, one process a
worker: reader, object store, iterator, float32 windows. Its CPU seconds are those of all processes together, less those
of a run without a window; a busy machine changes them less than windows a second. 8 H100s at 40 % of their peak would
eat 14,500 windows of 23x10 a second in pre-training.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Self

sys.path.insert(0, str(Path(__file__).parents[2]))

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import psutil
import ray

from neurolm.distributed.jobs import ray_session
from neurolm.distributed.stream import OrderedDataConfig, StepReader, step_chunks, worker_steps
from neurolm.eeg.reading import ReadingPlan
from neurolm.eeg.shards import Manifest, ShardWriter, Store, StoredWindow, combine_digests, write_manifest
from neurolm.eeg.window_table import SignalType

TARGET_PER_S = 14_500


def write_noise(folder: Path, num_windows: int, num_channels: int, seconds: int, signal_dtype: SignalType) -> None:
    """A finished store of training windows; a stretch of noise is long, and windows of it begin anywhere."""
    rng = np.random.default_rng(0)
    spectrum = np.fft.rfft(rng.standard_normal((num_channels, 2**18)))
    spectrum /= np.sqrt(np.maximum(np.arange(spectrum.shape[1]), 300))
    noise = np.fft.irfft(spectrum).astype(np.float32)
    noise *= 20 / noise.std()
    num_times = 200 * seconds
    with ShardWriter(folder / "train-noise-all.parquet", signal_dtype=signal_dtype) as writer:
        for number, start in enumerate(rng.integers(0, noise.shape[1] - num_times, num_windows).tolist()):
            signal = noise[:, start : start + num_times]
            channels = np.arange(num_channels, dtype=np.int16)
            writer.write([StoredWindow(signal, channels, "noise", "s", f"r{number // 100}", 10.0 * number, None)])
    file = {"name": writer.path.name, "split": "train", "num_windows": num_windows, "sha256": ""}
    write_manifest(folder, Manifest(data_digest=combine_digests(writer.digests), files=[file], counts={}))


def read_alone(plan: ReadingPlan, total_steps: int) -> dict[str, float]:
    """What the reading actor does, without Ray."""
    reader = StepReader(plan, 0, 1)
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    steps = {"first_step": np.array([0]), "stop_step": np.array([total_steps])}
    num_windows = sum(table.num_rows for table in reader(steps))
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    return {"windows": num_windows, "seconds": wall_s, "cpu_seconds": cpu_s, "windows_per_core_s": num_windows / cpu_s}


@ray.remote(num_cpus=0)
def consume(stream: Any, total_steps: int) -> tuple[int, float, float]:
    """A training loop that does nothing: windows after the first step, seconds, and how long the first one took."""
    begin = time.perf_counter()
    steps = worker_steps(stream, 0, total_steps)
    next(steps, None)
    first = time.perf_counter()
    return sum(len(step.windows) for step in steps), time.perf_counter() - first, first - begin


def stream(plan: ReadingPlan, folder: Path, total_steps: int, workers: int) -> dict[str, float]:
    """The whole way, with one reading actor and one consuming process a worker."""
    chunks = step_chunks(folder, total_steps, plan.batch_size)
    streams = OrderedDataConfig(plan, reader_cpus=1 / workers).configure({"train": chunks}, workers)
    with SessionCpu() as cpu:
        results = ray.get([consume.remote(each["train"], total_steps) for each in streams])
    num_windows, seconds = sum(result[0] for result in results), max(result[1] for result in results)
    return {
        "windows": num_windows,
        "seconds": seconds,
        "first_step_seconds": max(result[2] for result in results),
        "windows_per_s": num_windows / seconds,
        "cpu_seconds": cpu.seconds,
    }


class SessionCpu:
    """CPU seconds of this process and all that it starts, those included that end meanwhile."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[int, float], float] = {}
        self._before: dict[tuple[int, float], float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._before = dict(self._seconds)
        self._thread.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    @property
    def seconds(self) -> float:
        """CPU seconds since the beginning of the block."""
        return sum(seconds - self._before.get(process, 0) for process, seconds in self._seconds.items())

    def _follow(self) -> None:
        while not self._stop.wait(0.05):
            self._look()

    def _look(self) -> None:
        own = psutil.Process()
        for process in [own, *own.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                self._seconds[process.pid, process.create_time()] = times.user + times.system


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=20_000, help="more than a reader's cache holds")
    parser.add_argument("--shape", default="23x10", help="channels x seconds")
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16")
    parser.add_argument("--batch", type=int, default=64, help="windows in a global batch")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    num_channels, seconds = map(int, arguments.shape.split("x"))
    window_bytes = num_channels * 200 * seconds * np.dtype(arguments.dtype).itemsize
    with tempfile.TemporaryDirectory(prefix="neurolm-streaming-") as folder:
        write_noise(Path(folder), arguments.windows, num_channels, seconds, arguments.dtype)
        plan = ReadingPlan(Path(folder), None, arguments.batch, arguments.epochs, 0)
        total_steps = plan.total_steps(plan.order(Store.open(folder)))
        reader = read_alone(plan, total_steps)
        result: dict[str, Any] = {
            "settings": vars(arguments),
            "window_bytes": window_bytes,
            "store_bytes_per_window": sum(f.stat().st_size for f in Path(folder).glob("*.parquet")) / arguments.windows,
            "load_average": os.getloadavg()[0],
            "reader": reader,
            "reader_cores_for_14500_windows_per_s": TARGET_PER_S / reader["windows_per_core_s"],
            "stream": {},
        }
        with ray_session():
            for workers in arguments.workers:
                empty, full = (stream(plan, Path(folder), steps, workers) for steps in (0, total_steps))
                cpu_s = (full["cpu_seconds"] - empty["cpu_seconds"]) / full["windows"]
                result["stream"][f"{workers} workers"] = full | {
                    "mb_per_s": full["windows_per_s"] * window_bytes / 1e6,
                    "windows_per_core_s": 1 / cpu_s,
                    "cores_for_14500_windows_per_s": TARGET_PER_S * cpu_s,
                }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
