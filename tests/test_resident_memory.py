"""Memory is told of the program at hand alone, and its peak is kept."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from neurolm.resident_memory import peak_resident_bytes, resident_bytes

MIB = 2**20


def test_what_is_held_counts_and_its_peak_stays() -> None:
    before = resident_bytes()
    held = np.ones(64 * MIB // 8)
    assert resident_bytes() >= before + 48 * MIB
    peak = peak_resident_bytes()
    assert peak >= before + 48 * MIB
    del held
    assert peak_resident_bytes() >= peak - MIB


def test_a_program_does_not_begin_at_the_peak_of_the_one_that_started_it() -> None:
    held = np.ones(256 * MIB // 8)
    program = "from neurolm.resident_memory import peak_resident_bytes; print(peak_resident_bytes())"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert MIB < int(told) < held.nbytes


def test_a_kernel_that_keeps_no_peak_of_the_program_costs_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path: "Name:\tpython\nVmRSS:\t1 kB\n")
    assert peak_resident_bytes() > MIB
