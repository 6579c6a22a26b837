"""Small GDF files for tests; nothing at hand writes them."""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def write_gdf(path: Path, names: Sequence[str], *, num_records: int = 10, rate_hz: int = 200) -> Path:
    """GDF 1.25: int16 noise of 10 µV, one record a second, events 769 and 770 at 2 and 6 s (at 200 Hz)."""
    rng, count = np.random.default_rng(0), len(names)
    head = b"GDF 1.25".ljust(8) + b"X".ljust(80) + b"X".ljust(80) + b"2000010100000000"
    head += struct.pack("<q", 256 * (count + 1)) + b"\0" * 24 + b" " * 20
    head += struct.pack("<qIII", num_records, 1, 1, count)
    signals = b"".join(name.encode().ljust(16) for name in names) + b" " * (80 * count) + b"uV".ljust(8) * count
    signals += struct.pack("<d", -100.0) * count + struct.pack("<d", 100.0) * count
    signals += struct.pack("<q", -32768) * count + struct.pack("<q", 32767) * count + b" " * (80 * count)
    signals += struct.pack("<i", rate_hz) * count + struct.pack("<i", 3) * count + b" " * (32 * count)
    values = np.clip(rng.normal(0, 3277, (num_records, count, rate_hz)), -30000, 30000).astype("<i2")
    positions, codes = (401, 1201), (769, 770)  # positions count from 1
    events = struct.pack("<B3sI", 1, rate_hz.to_bytes(3, "little"), len(codes))
    events += struct.pack("<2I", *positions) + struct.pack("<2H", *codes)
    path.write_bytes(head + signals + values.tobytes() + events)
    return path
