"""What Ray Train and DeepSpeed cost over a plain torch loop, and what a second worker brings.

    python tests/benchmarks/train_overhead.py [--steps 25] [--batch 16] [--hidden-size 256] [--layers 4]

Three runs of the tokenizer stage on noise, with one torch thread a worker, on the same windows in the same global
batches: a plain torch loop of its own, which reads, computes and updates and nothing else; Ray Train with DeepSpeed
ZeRO-1 on one worker; the same on two. Seconds of a step are medians after the first ones, waiting for data included,
of Ray's runs by their own records. Prints JSON. Choose sizes so that a step takes about 1 s, on a quiet machine of two
free cores; bars: ``overhead`` at most 0.05, ``scaling`` at least 1.7.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ["OMP_NUM_THREADS"] = "1"

import torch

from neurolm.config import build
from neurolm.distributed.jobs import ray_session
from neurolm.distributed.train import train
from neurolm.eeg.reading import read_steps
from neurolm.training.assembly import assemble
from neurolm.training.context import LocalContext
from neurolm.training.optimizer import build_optimizer, learning_rate
from neurolm.training.runs import TokenizerRun
from tests.tiny import write_tiny_store


def make_run(out: Path, store: Path, workers: int, options: argparse.Namespace) -> TokenizerRun:
    """A run of so many steps without validation but at its end."""
    values = {
        "out": str(out),
        "data": {"store": str(store)},
        "epochs": 1,
        "validations": 1,
        "batch": {"size": options.batch, "micro_size": options.micro or None},
        "optimizer": {"learning_rate": 1e-4},
        "model": {
            "hidden_size": options.hidden_size,
            "num_layers": options.layers,
            "num_heads": 4,
            "decoder_layers": 2,
            "codebook_size": 256,
            "codebook_dim": 32,
            "embedding_init_std": 0.02,
        },
        "tracking": {"enabled": False},
        "workers": workers,
        "engine": {"kind": "deepspeed", "zero_stage": 1},
        "resources": {"cpus_per_worker": 0.5, "reader_cpus": 0.1},
    }
    return build(TokenizerRun, values, source="benchmark")


def plain_loop(run: TokenizerRun) -> list[float]:
    """Seconds of every step of a loop that anybody would write: read, forward, backward, clip, update."""
    torch.set_num_threads(1)
    assembly = assemble(run, LocalContext())
    stage, total = assembly.stage.train(), assembly.schedule.total_steps
    optimizer = build_optimizer(stage, run.optimizer)
    parameters = [one for one in stage.parameters() if one.requires_grad]
    seconds, parts = [], read_steps(assembly.windows, assembly.order, range(total))
    for step in range(total):
        began = time.perf_counter()
        batch = assembly.batcher(next(parts))
        totals = {name: float(number) for name, number in batch.counts.items()}
        if step == 0:
            stage.before_training(batch.micro_batches, LocalContext())
        for micro_batch in batch.micro_batches:
            stage(micro_batch, totals)["loss"].backward()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, total, run.optimizer)
        torch.nn.utils.clip_grad_norm_(parameters, run.optimizer.clip_norm or float("inf"))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        stage.after_step(LocalContext())
        seconds.append(time.perf_counter() - began)
    return seconds


def recorded(run: TokenizerRun) -> list[float]:
    """Seconds of every step by the run's own record, waiting for data included."""
    lines = (json.loads(line) for line in (run.folder / "tracking.jsonl").read_text().splitlines())
    values = [line["values"] for line in lines if line["event"] == "metrics" and "seconds_per_step" in line["values"]]
    return [one["seconds_per_step"] / (1 - one["data_wait_share"]) for one in values]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--warm-up", type=int, default=5, help="first steps that are left out")
    parser.add_argument("--batch", type=int, default=16, help="windows in a global batch")
    parser.add_argument("--micro", type=int, default=0, help="windows in a micro-batch; 0: all of a worker's share")
    parser.add_argument("--shape", default="19x4", help="channels x seconds")
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--only", choices=("overhead", "scaling", "both"), default="both")
    options = parser.parse_args()

    channels, seconds = map(int, options.shape.split("x"))
    found: dict[str, object] = vars(options)
    medians: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "store").mkdir()
        store = write_tiny_store(folder / "store", options.steps * options.batch, shape=(channels, 200 * seconds))
        steps: dict[str, list[float]] = {}
        if options.only != "scaling":
            steps["plain"] = plain_loop(make_run(folder / "plain", store, 1, options))
        with ray_session():
            for workers in (1,) if options.only == "overhead" else (1, 2):
                run = make_run(folder / f"ray-{workers}", store, workers, options)
                train(run, show_progress=False)
                steps[f"ray_{workers}"] = recorded(run)
    for name, each in steps.items():
        medians[name] = statistics.median(each[options.warm_up :])
        found[f"seconds_per_step_{name}"] = [round(one, 4) for one in each]
    found["medians"] = medians
    if "plain" in medians:
        found["overhead"] = medians["ray_1"] / medians["plain"] - 1
    if "ray_2" in medians:
        found["scaling"] = medians["ray_1"] / medians["ray_2"]
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
