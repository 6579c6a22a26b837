"""A look into a few steps: what torch does in them, as a trace for Chrome or Perfetto and as a table."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, model_validator
from torch.profiler import ProfilerActivity

from neurolm.config import config

FOLDER = "profile"
ROWS = 25


@config
class ProfileConfig:
    """Steps of a run that the first worker traces; they are slower than others."""

    first_step: Annotated[int, Field(gt=0)]
    """The first step, counted from 1 as in all that a run records; take one after the first few, which are slow."""
    last_step: Annotated[int, Field(gt=0)]
    """The last step; traces of more than a few are too large to look at."""

    @model_validator(mode="after")
    def _in_order(self) -> "ProfileConfig":
        if self.last_step < self.first_step:
            raise ValueError(f"last_step {self.last_step} is before first_step {self.first_step}")
        return self


class StepProfiler:
    """Traces the steps of a setting.

    Args:
        settings: which steps; None: none.
        folder: the run's; ``profile/steps-3-5.json.gz`` and ``.txt`` appear in it.
        device: that is looked at beside the CPU.
    """

    def __init__(self, settings: ProfileConfig | None, folder: Path, device: torch.device) -> None:
        self._settings, self._folder = settings, folder / FOLDER
        self._sort_by = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
        self._activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
        self._profiler: Any = None
        self._first = 0

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Around step ``number``, counted from 1."""
        settings = self._settings
        if settings is None or not settings.first_step <= number <= settings.last_step:
            yield
            return
        if self._profiler is None:
            self._profiler = torch.profiler.profile(activities=self._activities, record_shapes=True)
            self._profiler.start()
            self._first = number
        with torch.profiler.record_function(f"step {number}"):
            yield
        if number == settings.last_step:
            self._write(number)

    def _write(self, last: int) -> None:
        self._profiler.stop()
        self._folder.mkdir(parents=True, exist_ok=True)
        name = self._folder / f"steps-{self._first}-{last}"
        self._profiler.export_chrome_trace(f"{name}.json.gz")
        table = self._profiler.key_averages().table(sort_by=self._sort_by, row_limit=ROWS)
        name.with_suffix(".txt").write_text(table)
        self._profiler = None
