"""Small EDF files for tests."""

from collections.abc import Sequence
from pathlib import Path

import edfio
import numpy as np


def write_edf(
    path: Path,
    names: Sequence[str],
    *,
    duration_s: int = 10,
    sampling_rate_hz: float = 200,
    unit: str = "uV",
    scale: float = 1,
    seed: int = 0,
) -> Path:
    """Noise of 10 µV times ``scale`` under a header that claims ``unit``."""
    rng = np.random.default_rng(seed)
    size = round(duration_s * sampling_rate_hz)
    signals = [
        edfio.EdfSignal(
            np.clip(rng.normal(0, 10, size), -90, 90) * scale,
            sampling_rate_hz,
            label=name,
            physical_dimension=unit,
            physical_range=(-100 * scale, 100 * scale),
        )
        for name in names
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    edfio.Edf(signals).write(path)
    return path
