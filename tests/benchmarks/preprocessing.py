"""Hours of EEG per core-minute from recordings to a store, beside plain MNE doing the same steps; prints JSON.

    python tests/benchmarks/preprocessing.py --eegmat DIR --hours 2 --recordings 2

``mne`` reads, picks, filters, notches, resamples and cuts float32 windows, and keeps nothing. ``store`` is all of
`write_store`: the same, the checks, digests, parts and shards; in this process, in two, and as a Ray Data job on two
CPUs. A core-minute is a minute of CPU time of all processes that do the work; seconds on the clock stand beside it. How
much two processes gain depends on the machine, so plain MNE is run in two as well. On a busy machine compare ratios.
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

from neurolm.config import build
from neurolm.datasets.dataset import EEGDataset, SourceFile
from neurolm.datasets.ingest import DataConfig, plan_downstream, run_locally, write_store
from neurolm.datasets.motor_imagery import MotorImagery
from neurolm.datasets.plan import ShardPlan
from neurolm.datasets.workload import Workload
from neurolm.eeg.preprocessing import PreprocessingConfig
from tests.eeg.edf import write_long_edf

NAMES = ("FP1", "FP2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2", "F7", "F8", "T3", "T4", "T5", "T6", "A1", "A2",
         "FZ", "CZ", "PZ")  # fmt: skip
SETTINGS = PreprocessingConfig()


def plain_mne(job: tuple[EEGDataset, SourceFile]) -> int:
    """The same steps by MNE's own methods; returns the number of windows."""
    layout, source = job
    raw = mne.io.read_raw(source.path, preload=True, verbose="ERROR").pick(list(layout.channels))
    raw.filter(SETTINGS.low_hz, SETTINGS.high_hz, verbose="ERROR").notch_filter(layout.mains_hz, verbose="ERROR")
    raw.resample(SETTINGS.sampling_rate_hz, verbose="ERROR")
    signal = (raw.get_data() * 1e6).astype(np.float32)
    length, stride = 2000, 2000
    if isinstance(layout, Workload):
        signal, length, stride = signal[:, -12_000:], 800, 400
    return len([signal[:, start : start + length].copy() for start in range(0, signal.shape[1] - length + 1, stride)])


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


Measured = tuple[int, float, float]
"""Windows, CPU seconds, seconds."""


def measure_mne(plans: Sequence[ShardPlan], run: Callable[..., Iterable[Any]]) -> Measured:
    """Plain MNE on all recordings."""
    mapped, begin, cpu_s = Timed(run), time.perf_counter(), time.process_time()
    num_windows = sum(mapped(plain_mne, [(plan.layout, source) for plan in plans for source in plan.sources]))
    return num_windows, time.process_time() - cpu_s + mapped.cpu_s, time.perf_counter() - begin


def measure_store(plans: Sequence[ShardPlan], run: Callable[..., Iterable[Any]]) -> Measured:
    """Writing a store."""
    with tempfile.TemporaryDirectory(prefix="neurolm-preprocessing-") as folder:
        store = Path(folder) / "store"
        plans = [dataclasses.replace(plan, path=store / plan.path.name) for plan in plans]
        mapped, begin, cpu_s = Timed(run), time.perf_counter(), time.process_time()
        manifest = write_store(plans, store, mapped)
        cpu_s = time.process_time() - cpu_s + mapped.cpu_s
        return int(manifest.counts["num_windows"]), cpu_s, time.perf_counter() - begin


def compare(
    plans: Sequence[ShardPlan], hours: float, runs: dict[str, Callable[..., Iterable[Any]]], repeats: int
) -> dict[str, Any]:
    """Plain MNE and the store, alternately; the best of each counts."""
    best: dict[str, Measured] = {}
    for _ in range(repeats):
        measured = {f"mne, {name}": measure_mne(plans, run) for name, run in runs.items() if "Ray" not in name}
        measured |= {f"store, {name}": measure_store(plans, run) for name, run in runs.items()}
        assert len({num_windows for num_windows, _, _ in measured.values()}) == 1, measured
        for name, (num_windows, cpu_s, seconds) in measured.items():
            _, least_cpu_s, least_s = best.get(name, (0, cpu_s, seconds))
            best[name] = (num_windows, min(cpu_s, least_cpu_s), min(seconds, least_s))
    _, plain_cpu_s, plain_s = best["mne, 1 process"]
    return {
        name: {
            "hours_per_core_minute": hours / (cpu_s / 60),
            "cpu_seconds": cpu_s,
            "seconds": seconds,
            "cpu_relative_to_mne": cpu_s / plain_cpu_s,
            "speed_relative_to_mne": plain_s / seconds,
        }
        for name, (_, cpu_s, seconds) in best.items()
    } | {"hours": hours, "windows": best["mne, 1 process"][0]}


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
    results: dict[str, Any] = {"load_average_before": os.getloadavg()[0]}
    pool = concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))
    with pool, tempfile.TemporaryDirectory(prefix="neurolm-preprocessing-") as folder:
        runs: dict[str, Callable[..., Iterable[Any]]] = {
            "1 process": run_locally,
            "2 processes": pool.map,
        }
        list(pool.map(len, ["warm", "up"]))
        if not arguments.without_ray:
            import ray

            from neurolm.distributed.data import run_on_ray

            os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"
            ray.init(address="local", num_cpus=2, logging_level="ERROR", log_to_driver=False)
            list(run_on_ray(len, ["warm", "up"]))
            runs["Ray Data on 2 CPUs"] = run_on_ray
        if arguments.eegmat.is_dir():
            config = build(
                DataConfig, {"root": arguments.eegmat, "privacy": {"key_file": Path(folder) / "key"}}, "here"
            )
            plans = plan_downstream(config, Path(folder) / "store")
            paths = [source.path for plan in plans for source in plan.sources]
            hours = sum(mne.io.read_raw(path, verbose="ERROR").duration for path in paths) / 3600
            results["eegmat"] = compare(plans, hours, runs, arguments.repeats)
        layout = MotorImagery(channels=tuple(f"EEG {name}" for name in NAMES), mains_hz=50.0, window_s=10.0)
        plans = []
        for number in range(arguments.recordings):
            path = Path(folder) / f"S{number:03d}R01.edf"
            duration_s = round(3600 * arguments.hours)
            write_long_edf(path, layout.channels, duration_s=duration_s, sampling_rate_hz=250, seed=number)
            sources = (SourceFile(path, path.name, path.stem),)
            shard = Path(f"train-a-{number:b}.parquet")  # as planned: two of 75 MB are more than a shard holds
            plans.append(ShardPlan(shard, "train", "a", layout, sources, SETTINGS, b"k" * 32))
        results["generated"] = compare(plans, arguments.hours * arguments.recordings, runs, arguments.repeats)
        if not arguments.without_ray:
            ray.shutdown()
    results["load_average_after"] = os.getloadavg()[0]
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
