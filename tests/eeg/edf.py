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


def write_long_edf(path: Path, names: Sequence[str], *, duration_s: int, sampling_rate_hz: int, seed: int = 0) -> Path:
    """Noise of 20 µV over a slow drift, written second by second: a file may be larger than the memory."""
    rng = np.random.default_rng(seed)
    shared = ((8, "uV"), (8, "-3276.8"), (8, "3276.7"), (8, "-32768"), (8, "32767"), (80, ""), (8, sampling_rate_hz))
    columns = ["".join(f"{name:<16}" for name in names)]
    columns += [f"{text:<{width}}" * len(names) for width, text in ((80, "AgAgCl"), *shared, (32, ""))]
    header_bytes = 256 * (len(names) + 1)
    head = (
        f"{'0':<8}{'X X X X':<80}{'Startdate X X X X':<80}01.01.0100.00.00{header_bytes:<8}{'':<44}"
        f"{duration_s:<8}{1:<8}{len(names):<4}"
    )
    noise = rng.normal(0, 200, (60, len(names), sampling_rate_hz))
    with path.open("wb") as file:
        file.write((head + "".join(columns)).encode("ascii"))
        for second in range(duration_s):
            drift = 1000 * np.sin(2 * np.pi * second / 300 + np.arange(len(names)))[:, np.newaxis]
            file.write((noise[second * 7 % 60] + drift).astype("<i2").tobytes())
    return path
