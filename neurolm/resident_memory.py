"""Memory that the process at hand holds, and the most that it has held."""

import resource
import sys
from pathlib import Path

import psutil


def resident_bytes() -> int:
    """What is resident now."""
    return int(psutil.Process().memory_info().rss)


def peak_resident_bytes() -> int:
    """The most that was resident at any time since the program began.

    On Linux from the kernel's account of the program's own memory (``VmHWM``), where it keeps one, as some sandboxes do
    not: ``ru_maxrss`` begins at the peak of the process that started this one.
    """
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
