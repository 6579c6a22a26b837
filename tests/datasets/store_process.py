"""Writes a store of a folder in Workload's layout, in a process that a test may kill: ROOT KEY STORE [ray]."""

import sys
from pathlib import Path

from neurolm.config import build
from neurolm.datasets.ingest import DataConfig, plan_downstream, run_locally, write_store


def main(root: str, key: str, store: str, *runner: str) -> None:
    config = build(DataConfig, {"root": root, "privacy": {"key_file": key}}, source="test")
    plans = plan_downstream(config, Path(store))
    if not runner:
        write_store(plans, Path(store), run_locally)
        return
    from neurolm.distributed.data import run_on_ray
    from neurolm.distributed.jobs import ray_session

    with ray_session():
        write_store(plans, Path(store), run_on_ray)


if __name__ == "__main__":
    main(*sys.argv[1:])
