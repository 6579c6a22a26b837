"""A pipeline for every fold over subjects and every seed, its answers pooled; finished runs are not run again.

    python ray_jobs/cross_validate.py CONFIG [dotted.name=value ...]

Results appear in OUT/results.json, OUT/cross_validation.html and .md, those of every seed in OUT/seed-N.
"""

from pathlib import Path
from typing import Any

from neurolm.distributed.cross_validation import cross_validate
from neurolm.distributed.jobs import run_job


def main(path: Path, overrides: dict[str, Any]) -> None:
    """Cross-validate."""
    cross_validate(path, overrides)


if __name__ == "__main__":
    run_job(main, usage=__doc__ or "")
