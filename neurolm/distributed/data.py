"""Ray Data writes the stores: one task a recording, then one a shard, on as many nodes as there are."""

import pickle
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import ray.data
from ray import cloudpickle

from neurolm.datasets.ingest import DataConfig, plan_downstream, plan_pretraining, write_store
from neurolm.eeg.shards import Manifest

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_BLOCKS = 2000
"""Tasks of one job; beyond it several items share one."""


def write_stores(config: DataConfig, store: Path, pretraining_store: Path) -> dict[str, Manifest]:
    """Preprocess the downstream recordings and, where given, the pre-training ones. Raises UserError."""
    manifests = {"store": write_store(plan_downstream(config, store), store, run_on_ray)}
    if config.pretraining_root is not None:
        plans = plan_pretraining(config, pretraining_store)
        manifests["pretraining_store"] = write_store(plans, pretraining_store, run_on_ray)
    return manifests


def run_on_ray(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterable[Result]:
    """Call a function on every item in a Ray Data job, with one CPU each; results come as they are ready."""
    if not items:
        return

    def call(row: dict[str, Any]) -> dict[str, bytes]:
        return {"result": pickle.dumps(function(pickle.loads(row["item"])))}

    rows = [{"item": cloudpickle.dumps(item)} for item in items]
    results = ray.data.from_items(rows, override_num_blocks=min(len(rows), MAX_BLOCKS)).map(call, num_cpus=1)
    for row in results.iter_rows():
        yield pickle.loads(row["result"])
