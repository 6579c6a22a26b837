"""A sweep of the instruction tuning by Ray Tune and Optuna.

    python ray_jobs/tune.py CONFIG [dotted.name=value ...]

The best trial's model appears in OUT/instruct/model, its config in OUT/best.yaml, the page in OUT/report.html.
"""

from pathlib import Path
from typing import Any

from neurolm.distributed.jobs import run_job
from neurolm.distributed.pipeline import tune_step


def main(path: Path, overrides: dict[str, Any]) -> None:
    """Run the sweep."""
    tune_step(path, overrides)


if __name__ == "__main__":
    run_job(main, usage=__doc__ or "")
