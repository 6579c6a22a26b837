"""Ray Data writes stores of EEG tokens: actors that hold the encoder, as many as the cluster has room for."""

from collections.abc import Iterable, Sequence
from typing import Any

import ray.data
import torch

from neurolm.eeg.token_shards import TokenShard
from neurolm.training.token_job import ShardEncoder, TokenizeRun, TokenJob


def encode_on_ray(run: TokenizeRun, job: TokenJob, shards: Sequence[TokenShard]) -> Iterable[TokenShard]:
    """Encode shards as a Ray Data job; a shard is one task, repeated elsewhere where its actor dies."""
    numbers = ray.data.from_items([{"shard": number} for number in range(len(shards))], override_num_blocks=len(shards))
    written = numbers.map(
        _Actor,
        fn_constructor_args=(run, job, list(shards)),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=len(shards)),
        num_cpus=run.cpus_per_encoder,
        num_gpus=run.gpus_per_encoder or None,
    )
    for row in written.iter_rows():
        yield shards[row["shard"]]


class _Actor:
    """An encoder that takes shards by number."""

    def __init__(self, run: TokenizeRun, job: TokenJob, shards: list[TokenShard]) -> None:
        torch.set_num_threads(max(1, int(run.cpus_per_encoder)))
        self._shards = shards
        self._encode = ShardEncoder(job, device="cuda" if run.gpus_per_encoder else "cpu")

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        self._encode(self._shards[row["shard"]])
        return row
