"""The plan of a run: what it needs on so many GPUs, how to divide it, how long it will take and what it will cost."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neurolm.config import UserError
from neurolm.planning.memory import FORMATS, Sizes
from neurolm.planning.parameters import count
from neurolm.planning.search import Option, Search
from neurolm.planning.stages import build_planned_stage, load_planned_run
from neurolm.planning.windows import PlannedWindows, planned_windows
from neurolm.training.assembly import reading_plan
from neurolm.training.deepspeed_config import DeepSpeedEngineConfig
from neurolm.training.devices import PEAK_TFLOPS
from neurolm.training.training_run import TrainingRun

DEFAULT_GPU = "a100"
DEFAULT_MFU = 0.3
"""Share of the peak that a run reaches. A guess: no GPU run of neurolm has been measured."""


class DoesNotFit(UserError):
    """A run that no way of dividing it brings onto these GPUs."""


@dataclass(frozen=True)
class Plan:
    """What a run needs; times and costs are None where the number of windows is not known."""

    config: str
    run: TrainingRun
    num_gpus: int
    gpu_memory_gb: float
    states: str
    parts: dict[str, int]
    """Parameters and buffers by part of the model."""
    sizes: Sizes
    windows: PlannedWindows
    options: list[Option]
    recommended: Option
    configured: Option
    """As the file and the overrides say."""
    flop_per_step: float
    """Of all GPUs together, nothing computed twice."""
    peak_flops: float
    """Of one GPU, a second."""
    mfu: float
    price_per_gpu_hour: float | None
    notes: list[str]

    @property
    def num_steps(self) -> int | None:
        """Steps of the whole run."""
        if self.windows.num_windows is None:
            return None
        return reading_plan(self.run).num_steps(math.ceil(self.windows.num_windows / self.run.batch.size))

    @property
    def seconds_per_step(self) -> float:
        """Of the recommended option, by its operations; validation, checkpoints and waiting for data come on top."""
        return self.recommended.flop_per_step / (self.num_gpus * self.peak_flops * self.mfu)

    @property
    def hours(self) -> float | None:
        """Of the whole run."""
        return None if self.num_steps is None else self.num_steps * self.seconds_per_step / 3600

    @property
    def cost(self) -> float | None:
        """In the currency of the price."""
        if self.hours is None or self.price_per_gpu_hour is None:
            return None
        return self.hours * self.num_gpus * self.price_per_gpu_hour

    @property
    def checkpoint_bytes(self) -> int:
        """A checkpoint to resume from: master weights and moments of what is trained, and all else as it is."""
        numbers, trainable = FORMATS[self.states], self.sizes.trainable
        return trainable * (numbers.master + numbers.moments) + (self.sizes.saved - trainable) * numbers.weight

    @property
    def model_folder_bytes(self) -> int:
        """The model folder at the end, in fp32."""
        return 4 * self.sizes.exported


def make_plan(
    path: Path,
    overrides: dict[str, Any],
    *,
    num_gpus: int,
    gpu_memory_gb: float,
    price_per_gpu_hour: float | None = None,
    mfu: float = DEFAULT_MFU,
    gpu: str = DEFAULT_GPU,
    tflops: float | None = None,
    num_windows: int | None = None,
    shapes: str | None = None,
    states: str | None = None,
) -> Plan:
    """Plan a stage's config on one node of equal GPUs.

    Args:
        path: a stage's or a sweep's file.
        overrides: dotted settings.
        num_gpus: workers; replaces ``workers``.
        gpu_memory_gb: of each, in 10^9 bytes.
        price_per_gpu_hour: in any currency.
        mfu: share of the peak that all operations, also those computed twice, reach.
        gpu: whose peak.
        tflops: the peak itself, in 10^12 operations a second.
        num_windows: training windows, where there is no store yet.
        shapes: of the windows, where there is no store yet: ``64x16,19x4``.
        states: one of `FORMATS`; None: as the config says.

    Raises:
        ConfigError: the config cannot be used on so many workers.
        UserError: a number makes no sense, or something that the plan needs is not known; the message says what.
        DoesNotFit: no option fits; the message says what would.
    """
    given = {"gpus": num_gpus, "gpu-memory-gb": gpu_memory_gb, "mfu": mfu, "windows": num_windows, "tflops": tflops}
    for name, value in given.items():
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"--{name} {value}: expected more than 0")
    if mfu > 1:
        raise UserError(f"--mfu {mfu}: expected a share of the peak, at most 1")
    if price_per_gpu_hour is not None and not 0 <= price_per_gpu_hour < math.inf:
        raise UserError(f"--price-per-gpu-hour {price_per_gpu_hour}: expected 0 or more")
    if tflops is None and gpu not in PEAK_TFLOPS:
        raise UserError(f"--gpu {gpu}: not in the table of {', '.join(PEAK_TFLOPS)}; give its peak with --tflops")

    run = load_planned_run(path, overrides, num_gpus)
    planned = build_planned_stage(run, path)
    if not run.batch.num_crops:
        planned.stage.without_text()
    sizes, parts = count(planned.stage)
    windows = planned_windows(run, num_windows, shapes)
    states = states or _configured_states(run)
    is_low = states != "float32" or run.precision == "bfloat16"
    planned.stage.precision = "bfloat16" if is_low else "float32"
    peak = tflops or getattr(PEAK_TFLOPS[gpu], planned.stage.precision)
    if peak is None:
        raise UserError(
            f"--gpu {gpu}: has no units for bfloat16; set precision=float32, or give its peak with --tflops"
        )
    search = Search(run, planned, sizes, windows, FORMATS[states], num_gpus=num_gpus, gpu_memory_gb=gpu_memory_gb)
    options = search.options()
    recommended = search.recommend(options)
    if recommended is None:
        raise DoesNotFit(f"{path}: {search.what_would_fit(options)}")

    notes = [*planned.notes]
    if states != _configured_states(run):
        notes.append(f"states are planned as {states}; the config keeps them as {_configured_states(run)}")
    if windows.num_windows is None:
        notes.append("hours and costs are not known: make the store, or give --windows N")
    low, full = PEAK_TFLOPS.get(gpu, (None, peak))
    if not is_low and tflops is None and low is not None:
        notes.append(f"float32 products; with precision=bfloat16 the peak is {low / full:.0f} times as high")
    return Plan(
        config=str(path),
        run=run,
        num_gpus=num_gpus,
        gpu_memory_gb=gpu_memory_gb,
        states=states,
        parts=parts,
        sizes=sizes,
        windows=windows,
        options=options,
        recommended=recommended,
        configured=search.configured(),
        flop_per_step=search.flop(checkpointing=False),
        peak_flops=1e12 * peak,
        mfu=mfu,
        price_per_gpu_hour=price_per_gpu_hour,
        notes=notes,
    )


def _configured_states(run: TrainingRun) -> str:
    """One of `FORMATS`: what the run's engine keeps."""
    if not isinstance(run.engine, DeepSpeedEngineConfig) or run.engine.weights == "float32":
        return "float32"
    return "mixed" if run.engine.states == "float32" else "bfloat16"
