"""Small Neuroscan CNT files for tests."""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

HEADER_BYTES, CHANNEL_BYTES = 900, 75


def write_cnt(path: Path, names: Sequence[str], *, duration_s: int, sampling_rate_hz: int = 1000) -> Path:
    """Noise of 10 µV as 32-bit integers in steps of 1 µV, without events."""
    num_times = duration_s * sampling_rate_hz
    header = bytearray(HEADER_BYTES)
    header[225:244] = b"01/02/10\0\x0012:00:00\0"
    header[370:372] = struct.pack("<H", len(names))
    header[376:378] = struct.pack("<H", sampling_rate_hz)
    header[864:868] = struct.pack("<i", num_times)
    channels_end = HEADER_BYTES + CHANNEL_BYTES * len(names)
    header[886:890] = struct.pack("<i", channels_end + 4 * num_times * len(names))
    for place, name in enumerate(names):
        channel = bytearray(CHANNEL_BYTES)
        channel[: len(name)] = name.encode()
        angle = 2 * np.pi * place / len(names)
        channel[19:27] = struct.pack("<2f", np.cos(angle), np.sin(angle))
        channel[59:63] = struct.pack("<f", 204.8)  # MNE divides by this and takes the result for µV
        channel[71:75] = struct.pack("<f", 1.0)
        header += channel
    values = np.random.default_rng(0).normal(0, 10, (num_times, len(names))).astype("<i4")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(header) + values.tobytes() + struct.pack("<Bll", 1, 0, 0))
    return path
