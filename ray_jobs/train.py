"""Any training stage by Ray Train under DeepSpeed; CONFIG says which (stage: tokenizer, pretrain or instruct).

    python ray_jobs/train.py CONFIG [dotted.name=value ...]

The model folder appears in OUT/<run id>/model; the same run id again resumes.
"""

from pathlib import Path
from typing import Any

from neurolm.distributed.jobs import run_job
from neurolm.distributed.pipeline import train_step


def main(path: Path, overrides: dict[str, Any]) -> None:
    """Train."""
    train_step(path, overrides)


if __name__ == "__main__":
    run_job(main, usage=__doc__ or "")
