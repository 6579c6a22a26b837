"""A sweep of the instruction tuning by Ray Tune and Optuna.

    python ray_jobs/tune.py CONFIG [--resume] [dotted.name=value ...]

Afterwards the best setting, and the one that it has to beat, are trained again on sweep.confirmation_seeds fresh
seeds. The best setting's best model by validation appears in OUT/instruct/model, its config in OUT/best.yaml, the
report in OUT/report.html, .md and .json. The same command again goes on with a sweep that was cut off; --resume refuses
to begin a new one where there is none.
"""

import functools
import sys
from pathlib import Path
from typing import Any

from neurolm.distributed.jobs import run_job
from neurolm.distributed.pipeline import tune_step


def main(path: Path, overrides: dict[str, Any], must_exist: bool = False) -> None:
    """Run the sweep."""
    tune_step(path, overrides, must_exist)


if __name__ == "__main__":
    given = sys.argv[1:]
    run_job(
        functools.partial(main, must_exist="--resume" in given),
        usage=__doc__ or "",
        arguments=[one for one in given if one != "--resume"],
    )
