"""Stage 0: recordings to a sharded store, by Ray Data.

    python ray_jobs/preprocess.py CONFIG [dotted.name=value ...]

The store appears in OUT/store (and OUT/pretraining_store where data.pretraining_root is set).
"""

from pathlib import Path
from typing import Any

from neurolm.distributed.jobs import run_job
from neurolm.distributed.pipeline import preprocess_step


def main(path: Path, overrides: dict[str, Any]) -> None:
    """Write the stores."""
    preprocess_step(path, overrides)


if __name__ == "__main__":
    run_job(main, usage=__doc__ or "")
