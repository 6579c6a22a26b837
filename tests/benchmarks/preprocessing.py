"""Hours of EEG per core-minute from recordings to a store, beside plain MNE doing the same steps; prints JSON.

    python tests/benchmarks/preprocessing.py --eegmat DIR --hours 2 --recordings 2

``plain_mne`` reads, picks, filters, notches, resamples and cuts float32 windows in one process, and keeps nothing.
``store`` is all of `write_store`: the same, the checks, digests, parts and shards; in this process, in two processes,
and as a Ray Data job on two CPUs. A core-minute is a minute of CPU time of the processes that do the work; seconds on
the clock stand beside it. On a busy machine compare ratios within one run.
"""

import argparse
import concurrent.futures
import dataclasses
import functools
import json
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])

import mne
import numpy as np

from neurolm.datasets.dataset import SourceFile
from neurolm.datasets.ingest import run_locally, write_store
from neurolm.datasets.motor_imagery import MotorImagery
from neurolm.datasets.plan import ShardPlan
from neurolm.datasets.workload import Workload
from neurolm.eeg.preprocessing import PreprocessingConfig
from tests.eeg.edf import write_long_edf

NAMES = ("FP1", "FP2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2", "F7", "F8", "T3", "T4", "T5", "T6", "A1", "A2",
         "FZ", "CZ", "PZ")  # fmt: skip
SETTINGS = PreprocessingConfig()


def plain_mne(plan: ShardPlan) -> int:
    """The same steps by MNE's own methods; returns the number of windows."""
    num_windows = 0
    for source in plan.sources:
        raw = mne.io.read_raw(source.path, preload=True, verbose="ERROR").pick(list(plan.layout.channels))
        raw.filter(SETTINGS.low_hz, SETTINGS.high_hz, verbose="ERROR").notch_filter(
            plan.layout.mains_hz, verbose="ERROR"
        )
        raw.resample(SETTINGS.sampling_rate_hz, verbose="ERROR")
        signal = (raw.get_data() * 1e6).astype(np.float32)
        length, stride = 2000, 2000
        if isinstance(plan.layout, Workload):
            signal, length, stride = signal[:, -12_000:], 800, 400
        windows = [signal[:, start : start + length].copy() for start in range(0, signal.shape[1] - length + 1, stride)]
        num_windows += len(windows)
    return num_windows


def timed(function: Callable[[Any], Any], caller: int, item: Any) -> tuple[Any, float]:
    """A result and the CPU seconds that it took, if in another process than the caller's."""
    warnings.simplefilter("ignore")
    begin = time.process_time()
    result = function(item)
    return result, 0.0 if os.getpid() == caller else time.process_time() - begin


class Timed:
    """A map that adds up the CPU seconds of its calls in other processes."""

    def __init__(self, run: Callable[..., Iterable[Any]]) -> None:
        self.cpu_s = 0.0
        self._run = run

    def __call__(self, function: Callable[[Any], Any], items: Sequence[Any], /) -> Iterable[Any]:
        for result, cpu_s in self._run(functools.partial(timed, function, os.getpid()), items):
            self.cpu_s += cpu_s
            yield result


def measure(plan: ShardPlan, run: Callable[..., Iterable[Any]]) -> tuple[int, float, float]:
    """Windows, CPU seconds and seconds of writing a store."""
    with tempfile.TemporaryDirectory(prefix="neurolm-preprocessing-") as folder:
        store = Path(folder) / "store"
        plan = dataclasses.replace(plan, path=store / plan.path.name)
        mapped, begin, cpu_s = Timed(run), time.perf_counter(), time.process_time()
        manifest = write_store([plan], store, mapped)
        cpu_s = time.process_time() - cpu_s + mapped.cpu_s
        return int(manifest.counts["num_windows"]), cpu_s, time.perf_counter() - begin


def compare(
    plan: ShardPlan, hours: float, runs: dict[str, Callable[..., Iterable[Any]]], repeats: int
) -> dict[str, Any]:
    """Plain MNE and the store, alternately; the best of each counts."""
    best: dict[str, tuple[int, float, float]] = {}
    for _ in range(repeats):
        begin, cpu_s = time.perf_counter(), time.process_time()
        num_windows = plain_mne(plan)
        measured = {"plain_mne": (num_windows, time.process_time() - cpu_s, time.perf_counter() - begin)}
        measured |= {name: measure(plan, run) for name, run in runs.items()}
        for name, values in measured.items():
            assert values[0] == num_windows, f"{name} gave {values[0]} windows, MNE {num_windows}"
            known = best.get(name, values)
            best[name] = (num_windows, min(known[1], values[1]), min(known[2], values[2]))
    plain_cpu_s, one_s = best["plain_mne"][1], best["store, 1 process"][2]
    return {
        name: {
            "hours_per_core_minute": hours / (cpu_s / 60),
            "hours_per_minute": hours / (seconds / 60),
            "cpu_seconds": cpu_s,
            "seconds": seconds,
            "cpu_relative_to_plain_mne": cpu_s / plain_cpu_s,
            "speed_relative_to_1_process": one_s / seconds,
        }
        for name, (_, cpu_s, seconds) in best.items()
    } | {"hours": hours, "windows": best["plain_mne"][0]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eegmat", type=Path, default=Path(__file__).parents[3] / "shared" / "data" / "eegmat")
    parser.add_argument("--hours", type=float, default=2)
    parser.add_argument("--recordings", type=int, default=2, help="generated recordings of so many hours")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--without-ray", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    plan = ShardPlan(Path("train-a-all.parquet"), "train", "a", Workload(), (), SETTINGS, b"k" * 32)
    results: dict[str, Any] = {"load_average_before": os.getloadavg()[0]}
    pool = concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))
    with pool, tempfile.TemporaryDirectory(prefix="neurolm-preprocessing-") as folder:
        runs: dict[str, Callable[..., Iterable[Any]]] = {
            "store, 1 process": run_locally,
            "store, 2 processes": pool.map,
        }
        list(pool.map(len, ["warm", "up"]))
        if not arguments.without_ray:
            import ray

            from neurolm.distributed.data import run_on_ray

            os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"
            ray.init(address="local", num_cpus=2, logging_level="ERROR", log_to_driver=False)
            list(run_on_ray(len, ["warm", "up"]))
            runs["store, Ray Data on 2 CPUs"] = run_on_ray
        if arguments.eegmat.is_dir():
            sources = Workload().find(arguments.eegmat)
            hours = sum(mne.io.read_raw(source.path, verbose="ERROR").duration for source in sources) / 3600
            eegmat = dataclasses.replace(plan, sources=tuple(sources))
            results["eegmat"] = compare(eegmat, hours, runs, arguments.repeats)
        layout = MotorImagery(channels=tuple(f"EEG {name}" for name in NAMES), mains_hz=50.0, window_s=10.0)
        sources = []
        for number in range(arguments.recordings):
            path = Path(folder) / f"S{number:03d}R01.edf"
            duration_s = round(3600 * arguments.hours)
            write_long_edf(path, layout.channels, duration_s=duration_s, sampling_rate_hz=250, seed=number)
            sources.append(SourceFile(path, path.name, path.stem))
        generated = dataclasses.replace(plan, layout=layout, sources=tuple(sources))
        results["generated"] = compare(generated, arguments.hours * arguments.recordings, runs, arguments.repeats)
        if not arguments.without_ray:
            ray.shutdown()
    results["load_average_after"] = os.getloadavg()[0]
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
