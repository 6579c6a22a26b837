"""Seconds of one training step, forward and backward, without optimizer and text batch; prints JSON.

    python tests/benchmarks/training_step.py --stage pretrain --shape 19x4 --size b --batch 2
    python tests/benchmarks/training_step.py --stage instruct --shape mixture --size b --batch 2 --tokens cached

``--shape`` lists windows as channels x seconds. Each shape is measured on its own, ``--batch`` windows of it in a step,
and counts with its ``--weights``; ``mixture`` is the paper's six tasks weighted by the sizes of their data sets. In
pre-training from raw windows a step includes the codes. Beside the times stand the released code's for the same step
(NeuroLM-B, batch 2, fp32, 2 threads of the machine that the recorded figures come from), where they are known.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

THREADS = int(os.environ.setdefault("OMP_NUM_THREADS", "2"))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from neurolm.eeg.shards import StoredWindow  # noqa: E402
from neurolm.eeg.tokens import TokenDtype  # noqa: E402
from neurolm.models.language_model import LanguageModelConfig  # noqa: E402
from neurolm.models.neural_tokenizer import NeuralTokenizer  # noqa: E402
from neurolm.models.neural_tokenizer_config import NeuralTokenizerConfig  # noqa: E402
from neurolm.models.neurolm import NeuroLM, NeuroLMConfig  # noqa: E402
from neurolm.resident_memory import peak_resident_bytes  # noqa: E402
from neurolm.sequences import Batch, collate  # noqa: E402
from neurolm.text.bpe import gpt2_bpe  # noqa: E402
from neurolm.text.instructions import TASKS, encode_task  # noqa: E402
from neurolm.training.encoding import encode_windows  # noqa: E402
from neurolm.training.flops import FORMULAS  # noqa: E402
from neurolm.training.instruct import InstructLossConfig, InstructStage  # noqa: E402
from neurolm.training.pretrain import PretrainLossConfig, PretrainStage  # noqa: E402
from neurolm.training.stage import Stage  # noqa: E402
from neurolm.training.tokenizer import TokenizerLossConfig, TokenizerStage  # noqa: E402

MIXTURE = {"tuab": ("23x10", 409_455), "tuev": ("23x5", 112_491), "seed": ("62x4", 38_475), "hmc": ("4x30", 137_243),
           "workload": ("19x4", 2_088), "tusl": ("23x10", 245)}  # fmt: skip
"""Shape and number of windows of the paper's six tasks."""

RELEASED_PADDED = {"pretrain": 17.2, "instruct": 3.8}
"""Seconds a step as released: everything is padded to 1024 tokens, or to 356."""

SIZES = {"b": (768, 12, 12), "l": (1024, 24, 16), "tiny": (64, 2, 4)}
"""Width, blocks and heads of the language model."""


def build_stage(name: str, size: str) -> Stage:
    """A stage with random weights; the encoder is the paper's but in ``tiny``."""
    small = {"hidden_size": 64, "num_layers": 2, "num_heads": 4, "codebook_size": 512, "codebook_dim": 32}
    tokenizer = NeuralTokenizerConfig(**(small if size == "tiny" else {}))
    if name == "tokenizer":
        return TokenizerStage(NeuralTokenizer(tokenizer), None, TokenizerLossConfig())
    width, blocks, heads = SIZES[size]
    language_model = LanguageModelConfig(hidden_size=width, num_layers=blocks, num_heads=heads)
    model = NeuroLM(NeuroLMConfig(tokenizer=tokenizer, language_model=language_model))
    if name == "pretrain":
        return PretrainStage(model, PretrainLossConfig())
    return InstructStage(model, {task: encode_task(TASKS[task], gpt2_bpe()) for task in MIXTURE}, InstructLossConfig())


def build_batch(stage: Stage, shape: str, size: int, task: str | None, tokens: TokenDtype | None) -> Batch:
    """Noise of one shape; in instruction tuning with the question of ``task``.

    With ``tokens`` the windows are encoded first, as the tokenize job does, and carry the frozen encoder's output.
    """
    channels, seconds = (int(part) for part in shape.split("x"))
    rng = np.random.default_rng(0)
    data_set = task or "noise"
    labels = list(TASKS[task].answers) if task else [None]
    windows = [
        StoredWindow(
            signal=(30 * rng.standard_normal((channels, 200 * seconds))).astype(np.float32),
            channel_indices=np.arange(channels, dtype=np.int16),
            data_set=data_set,
            subject="s",
            recording="r",
            start_s=0.0,
            label=labels[place % len(labels)],
        )
        for place in range(size)
    ]
    if tokens is not None:
        assert isinstance(stage, PretrainStage | InstructStage)
        windows = encode_windows(stage.model.tokenizer, windows, tokens)
    tasks = {task: encode_task(TASKS[task], gpt2_bpe())} if task else None
    return collate(windows, np.arange(size), text=None, tasks=tasks)


def step(stage: Stage, batch: Batch) -> None:
    """Forward and backward."""
    totals = {name: float(count) for name, count in batch.counts.items()}
    stage(batch, totals)["loss"].backward()


def measure(stage: Stage, batch: Batch, repeats: int) -> dict[str, float]:
    """Median seconds and floating-point operations of a step."""
    step(stage, batch)
    counter = FlopCounterMode(display=False)
    counter.flop_registry |= FORMULAS  # torch's table has no attention of a CPU
    with counter:
        step(stage, batch)
    seconds = []
    for _ in range(repeats):
        stage.zero_grad(set_to_none=True)
        started = time.perf_counter()
        step(stage, batch)
        seconds.append(time.perf_counter() - started)
    return {"seconds_per_step": statistics.median(seconds), "flop": float(counter.get_total_flops())}


def profile(stage: Stage, batch: Batch) -> dict[str, float]:
    """Where the time of a step goes: share of the operations' own time, the ten largest."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        step(stage, batch)
    own = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
    largest = sorted(own, key=lambda name: -own[name])[:10]
    return {name: round(own[name] / sum(own.values()), 4) for name in largest}


def matmul_limit(dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product here and now, the best of five."""
    left, right = torch.randn(2048, 2048, dtype=dtype), torch.randn(2048, 2048, dtype=dtype)
    best = float("inf")
    for _ in range(6):
        started = time.perf_counter()
        torch.mm(left, right)
        best = min(best, time.perf_counter() - started)
    return 2 * 2048**3 / best


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=("tokenizer", "pretrain", "instruct"), required=True)
    parser.add_argument("--shape", required=True, help="CxS[,CxS...] or mixture")
    parser.add_argument("--tasks", help="task of each shape in instruction tuning; default: the first of that shape")
    parser.add_argument("--weights", help="weight of each shape; default: equal")
    parser.add_argument("--size", choices=tuple(SIZES), default="b")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--tokens", choices=("raw", "cached"), default="raw")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="also say where the time of the last shape's step goes")
    options = parser.parse_args()

    if options.shape == "mixture":
        shapes, weights = [shape for shape, _ in MIXTURE.values()], [float(count) for _, count in MIXTURE.values()]
        tasks: list[str] = list(MIXTURE)
    else:
        shapes = options.shape.lower().split(",")
        weights = [float(one) for one in options.weights.split(",")] if options.weights else [1.0] * len(shapes)
        by_shape = {shape: task for task, (shape, _) in reversed(MIXTURE.items())}
        tasks = options.tasks.split(",") if options.tasks else [by_shape.get(shape, "workload") for shape in shapes]
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    dtype = getattr(torch, options.dtype)
    stage = build_stage(options.stage, options.size)
    stage.precision = options.dtype
    rows, measured = [], {}
    for shape, task, weight in zip(shapes, tasks, weights, strict=True):
        key = shape, task if options.stage == "instruct" else None
        if key not in measured:
            kept = options.dtype if options.tokens == "cached" else None
            batch = build_batch(stage, shape, options.batch, key[1], kept)
            measured[key] = measure(stage, batch, options.repeats) | {"eeg_tokens": batch.counts["eeg_tokens"]}
        rows.append({"shape": shape, "task": key[1], "weight": weight, **measured[key]})
    share = [weight / sum(weights) for weight in weights]
    seconds, flop, tokens = (
        sum(part * row[name] for part, row in zip(share, rows, strict=True))
        for name in ("seconds_per_step", "flop", "eeg_tokens")
    )
    limit = matmul_limit(dtype)
    result = vars(options) | {
        "threads": THREADS,
        "shapes": rows,
        "seconds_per_step": seconds,
        "eeg_tokens_per_second": tokens / seconds,
        "peak_memory_gib": peak_resident_bytes() / 2**30,
        "flop_per_second": flop / seconds,
        "matmul_flop_per_second": limit,
        "share_of_limit": flop / seconds / limit,
    }
    if options.profile:
        result["profile"] = profile(stage, batch)
    if options.stage in RELEASED_PADDED and options.size == "b" and options.batch == 2:
        result["released_seconds_per_step"] = RELEASED_PADDED[options.stage]
        result["times_as_fast_as_released"] = RELEASED_PADDED[options.stage] / seconds
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
