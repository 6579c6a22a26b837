"""Two DeepSpeed workers agree on what was not finite, whichever of them has it, and no weight is spoilt."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_two_workers_agree_and_their_weights_stay_good(tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-m", "tests.distributed.not_finite_workers"]
    workers = [
        subprocess.Popen([*command, str(rank), str(tmp_path)], cwd=ROOT, env=environment, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    said = [worker.communicate(timeout=600)[1].decode() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], said
    first, second = (json.loads((tmp_path / f"seen-{rank}.json").read_text()) for rank in range(2))
    for zero_stage, seen in first.items():
        assert seen["error"] == second[zero_stage]["error"], zero_stage
        assert seen["error"].startswith("step 1: ")
        assert "the loss of 1 of its 7 windows is not finite: recording r5 of workload at 0 s (its sig" in seen["error"]
        for one in (seen, second[zero_stage]):
            assert one["steps"] == 1
            assert [name for name in one if one[name] is True] == [
                "first step moves", "next step moves", "last step moves",
            ], zero_stage  # fmt: skip
        if second[zero_stage]["sum"] is not None:
            assert seen["sum"] == second[zero_stage]["sum"]
