"""Everything: recordings to a tuned, evaluated model; finished steps are skipped when it is run again.

    python ray_jobs/pipeline.py CONFIG [dotted.name=value ...]

Results, report, MLflow store and the final model appear in OUT.
"""

from pathlib import Path
from typing import Any

from neurolm.distributed.jobs import run_job
from neurolm.distributed.pipeline import run_pipeline


def main(path: Path, overrides: dict[str, Any]) -> None:
    """Run the pipeline."""
    run_pipeline(path, overrides)


if __name__ == "__main__":
    run_job(main, usage=__doc__ or "")
