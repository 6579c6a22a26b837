"""Ray Data writes the stores: one task a shard, on as many nodes as there are."""

import dataclasses
import functools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import ray.data

from neurolm.datasets.ingest import (
    DataConfig,
    ShardAccount,
    ShardPlan,
    plan_downstream,
    plan_pretraining,
    write_shard,
    write_store,
)
from neurolm.eeg.shards import Manifest


def write_stores(config: DataConfig, store: Path, pretraining_store: Path) -> dict[str, Manifest]:
    """Preprocess the downstream recordings and, where given, the pre-training ones. Raises UserError."""
    manifests = {"store": write_store(plan_downstream(config, store), store, _run_on_ray)}
    if config.pretraining_root is not None:
        plans = plan_pretraining(config, pretraining_store)
        manifests["pretraining_store"] = write_store(plans, pretraining_store, _run_on_ray)
    return manifests


def _run_on_ray(plans: Sequence[ShardPlan]) -> Iterable[ShardAccount]:
    """Write shards as a Ray Data job, one task a shard."""
    numbers = ray.data.from_items([{"shard": number} for number in range(len(plans))], override_num_blocks=len(plans))
    accounts = numbers.map(functools.partial(_write_one, plans=list(plans)), num_cpus=1)
    for row in accounts.iter_rows():
        yield ShardAccount(**json.loads(row["account"]))


def _write_one(row: dict[str, Any], plans: list[ShardPlan]) -> dict[str, str]:
    return {"account": json.dumps(dataclasses.asdict(write_shard(plans[row["shard"]])))}
