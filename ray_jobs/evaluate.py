"""The test split, opened once and counted.

    python ray_jobs/evaluate.py CONFIG [dotted.name=value ...]

Results appear in OUT/results.json, every answer in OUT/predictions/.
"""

from pathlib import Path
from typing import Any

from neurolm.distributed.jobs import run_job
from neurolm.distributed.pipeline import evaluate_step


def main(path: Path, overrides: dict[str, Any]) -> None:
    """Evaluate."""
    evaluate_step(path, overrides)


if __name__ == "__main__":
    run_job(main, usage=__doc__ or "")
