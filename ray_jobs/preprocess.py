"""Stage 0: recordings to a sharded store, by Ray Data.

    python ray_jobs/preprocess.py CONFIG [dotted.name=value ...]

The store appears in OUT/store (and OUT/pretraining_store where data.pretraining_root is set). Run again, it reads what
is new, what has changed and what was quarantined.
"""

from pathlib import Path
from typing import Any

from neurolm.distributed.jobs import run_job
from neurolm.distributed.pipeline import preprocess_step


def main(path: Path, overrides: dict[str, Any]) -> None:
    """Write the stores, or bring them up to date."""
    preprocess_step(path, overrides, try_again=True)


if __name__ == "__main__":
    run_job(main, usage=__doc__ or "")
