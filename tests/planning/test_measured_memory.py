import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "step_memory.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "layers", "heads", "windows", "crops"),
    [(256, 4, 4, 8, 2), (512, 8, 8, 8, 2), (768, 12, 12, 4, 1), (256, 4, 4, 64, 8)],
)
def test_predicted_memory_is_what_a_step_on_the_cpu_takes(
    width: int, layers: int, heads: int, windows: int, crops: int
) -> None:
    options = {"width": width, "layers": layers, "heads": heads, "windows": windows, "crops": crops}
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    in_small_pages = os.environ | {"THP_MEM_ALLOC_ENABLE": "0"}  # the ends of huge pages are no tensors
    command = [sys.executable, SCRIPT, *arguments]
    done = subprocess.run(command, env=in_small_pages, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    print({name: result[name] for name in ("parameters", "predicted_bytes", "measured_bytes")})
    assert result["predicted_over_measured"] == pytest.approx(1, abs=0.15)
