"""Peak memory of training steps on the CPU beside what `neurolm plan` predicts for them; prints JSON.

    THP_MEM_ALLOC_ENABLE=0 python tests/benchmarks/step_memory.py --width 512 --layers 8 --heads 8 --windows 8

Two steps of pre-training in fp32 with torch's AdamW, so that the second has the optimizer's states from its beginning.
Measured is the peak of the resident set over what the process holds after its imports and a step of a tiny model.
Predicted are tensors; without that variable they lie in huge pages, whose unused ends are up to a fifth more.
"""

import argparse
import json
from pathlib import Path

import torch

from neurolm.models.language_model import LanguageModelConfig
from neurolm.models.neural_tokenizer_config import NeuralTokenizerConfig
from neurolm.models.neurolm import NeuroLM, NeuroLMConfig
from neurolm.planning.memory import FORMATS, Division, memory
from neurolm.planning.parameters import count
from neurolm.planning.trace import Tracer, WindowShape
from neurolm.resident_memory import peak_resident_bytes, resident_bytes
from neurolm.sequences import PATCH_POINTS, Batch, WindowGroup
from neurolm.training.engine import TorchEngine
from neurolm.training.optimizer import OptimizerConfig
from neurolm.training.pretrain import PretrainLossConfig, PretrainStage

SHAPE = WindowShape(num_channels=19, num_seconds=4)


def build(width: int, layers: int, heads: int) -> PretrainStage:
    """A stage whose encoder and language model have the same size."""
    sizes = {"hidden_size": width, "num_layers": layers, "num_heads": heads}
    tokenizer, language_model = NeuralTokenizerConfig(**sizes), LanguageModelConfig(**sizes)
    return PretrainStage(
        NeuroLM(NeuroLMConfig(tokenizer=tokenizer, language_model=language_model)), PretrainLossConfig()
    )


def batch(num_windows: int, num_crops: int, text_length: int) -> Batch:
    """Noise in the shape of windows, and random text."""
    group = WindowGroup(
        signal=torch.randn(num_windows, SHAPE.num_tokens, PATCH_POINTS),
        channel_index=torch.randint(0, 139, (num_windows, SHAPE.num_tokens)),
        time_index=torch.arange(SHAPE.num_seconds).repeat_interleave(SHAPE.num_channels),
        position=torch.arange(num_windows),
        num_channels=SHAPE.num_channels,
        num_seconds=SHAPE.num_seconds,
    )
    return Batch((group,), torch.randint(0, 50_000, (num_crops, text_length + 1)) if num_crops else None)


def train(stage: PretrainStage, num_steps: int, num_windows: int, num_crops: int, text_length: int) -> None:
    """Real steps of the reference engine."""
    engine = TorchEngine(stage, OptimizerConfig(learning_rate=1e-4), 10, torch.device("cpu"))
    for _ in range(num_steps):
        one = batch(num_windows, num_crops, text_length)
        totals = {name: float(number) for name, number in one.counts.items()}
        engine.backward(engine(one, totals)["loss"], is_last=True)
        engine.step()


def main() -> None:
    """Predict, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--heads", type=int, required=True)
    parser.add_argument("--windows", type=int, required=True)
    parser.add_argument("--crops", type=int, default=2)
    parser.add_argument("--text-length", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(1)
    size = (options.width, options.layers, options.heads)
    work = (options.windows, options.crops, options.text_length)

    train(build(32, 1, 2), 1, 2, 1, 16)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the imports
    before = resident_bytes()
    train(build(*size), 2, *work)
    measured = peak_resident_bytes() - before

    with torch.device("meta"):
        planned = build(*size)
    sizes, _ = count(planned)
    trace = Tracer(planned, {})(SHAPE, *work)
    predicted = memory(
        sizes,
        Division(zero_stage=0),
        FORMATS["float32"],
        trace,
        num_gpus=1,
        num_micro_batches=1,
        bucket=0,
        overlap=False,
        on_cpu=True,
    )
    print(
        json.dumps(
            vars(options)
            | {"parameters": sizes.trainable + sizes.frozen, "measured_bytes": measured}
            | {"predicted_bytes": predicted.total, "predicted": vars(predicted)}
            | {"predicted_over_measured": predicted.total / measured}
        )
    )


if __name__ == "__main__":
    main()
