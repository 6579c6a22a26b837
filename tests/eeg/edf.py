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


def write_mixed(path: Path, rates_hz: dict[str, float], duration_s: int = 20) -> Path:
    """Noise of 10 µV in channels of several sampling rates."""
    rng = np.random.default_rng(0)
    signals = [
        edfio.EdfSignal(
            np.clip(rng.normal(0, 10, round(duration_s * rate_hz)), -90, 90),
            rate_hz,
            label=name,
            physical_dimension="uV",
            physical_range=(-100, 100),
        )
        for name, rate_hz in rates_hz.items()
    ]
    edfio.Edf(signals, data_record_duration=1).write(path)
    return path


def write_discontinuous(path: Path, onsets_s: Sequence[int], marks: Sequence[tuple[float, float, str]] = ()) -> Path:
    """An EDF+D file of FP1 alone: 1 s at 200 Hz for every onset, marks at times of the clock."""
    rng = np.random.default_rng(0)
    lists = []
    for place, onset in enumerate(onsets_s):
        text = f"+{onset}\x14\x14\x00"
        if place == 0:
            text += "".join(f"+{time}\x15{length}\x14{word}\x14\x00" for time, length, word in marks)
        lists.append(text.encode().ljust(240, b"\0"))
    fields = [
        ("FP1", "EDF Annotations"), ("", ""), ("uV", ""), ("-100", "-1"), ("100", "1"), ("-32768", "-32768"),
        ("32767", "32767"), ("", ""), ("200", "120"), ("", ""),
    ]  # fmt: skip
    widths = [16, 80, 8, 8, 8, 8, 8, 80, 8, 32]
    header = f"{'0':8}{'X X X X':80}{'Startdate X X X X':80}{'01.01.85':8}{'00.00.00':8}{768:<8}{'EDF+D':44}"
    header += f"{len(onsets_s):<8}{1:<8}{2:<4}"
    header += "".join(f"{value:{width}}" for values, width in zip(fields, widths, strict=True) for value in values)
    with path.open("wb") as file:
        file.write(header.encode())
        for annotations in lists:
            file.write(np.clip(rng.normal(0, 3000, 200), -30000, 30000).astype("<i2").tobytes() + annotations)
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
