"""The frozen encoder goes over the stores once, by Ray Data; later runs read its EEG tokens in place of signals.

    python ray_jobs/tokenize_eeg.py CONFIG data.tokens=bfloat16 [dotted.name=value ...]

Tokens appear in OUT/token_store (and OUT/pretraining_token_store); the runs that read them need the same data.tokens.
"""

# A script named tokenize.py would stand in front of the standard library's module for every script in this folder.

from pathlib import Path
from typing import Any

from neurolm.distributed.jobs import run_job
from neurolm.distributed.pipeline import tokenize_step


def main(path: Path, overrides: dict[str, Any]) -> None:
    """Write the tokens."""
    tokenize_step(path, overrides)


if __name__ == "__main__":
    run_job(main, usage=__doc__ or "")
