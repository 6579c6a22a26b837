"""From folders of recordings to a sharded store: what a Ray job runs on many nodes and one process runs alone.

A store is planned first (which recordings go to which shard, a function of the files alone). Then every recording is
read, preprocessed and cut on its own (`jobs.make_part`), shards are put together from these parts (`jobs.assemble`),
and last the manifest is put beside them. Killed anywhere and run again, it goes on where it was and ends with the same
bytes; with recordings added, it reads these alone and writes the shards anew that change.

A broken recording never stops a run: it is quarantined under its keyed id with the reason, counted, and tried again by
the next run.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from neurolm.config import ConfigError
from neurolm.datasets.accounting import ShardAccount, manifest_of, refuse_shared_subjects
from neurolm.datasets.data_config import DataConfig, DataSetConfig, PrivacyConfig, Step
from neurolm.datasets.jobs import RecordingJob, ShardJob, assemble, make_part
from neurolm.datasets.parts import ACCOUNTS, Parts, Place
from neurolm.datasets.plan import (
    Origins,
    ShardPlan,
    layout_described,
    layout_named,
    layout_of,
    plan_digest,
    plan_downstream,
    plan_pretraining,
)
from neurolm.datasets.published_counts import compare_with_published
from neurolm.eeg.fingerprint_files import fingerprints_beside
from neurolm.eeg.manifest import MANIFEST
from neurolm.eeg.privacy_proof import prove_private
from neurolm.eeg.shards import Manifest, write_manifest

__all__ = [
    "DataConfig", "DataSetConfig", "PrivacyConfig", "RecordingJob", "ShardAccount", "ShardJob", "ShardPlan", "Step",
    "assemble", "layout_described", "layout_named", "layout_of", "make_part", "plan_digest", "plan_downstream",
    "plan_pretraining", "run_locally", "write_store",
]  # fmt: skip

WAVE_SOURCE_BYTES = 64 * 2**30
"""Recordings become parts up to this size before their shards are put together; it bounds the disk that parts take."""

BEFORE = "manifest.before"
"""The manifest of what the store was, while it is being changed."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Run(Protocol):
    """A map, local or distributed; results may come in any order."""

    def __call__(self, function: Callable[[Item], Result], items: Sequence[Item], /) -> Iterable[Result]:
        """The function's results."""


def write_store(plans: Sequence[ShardPlan], store: Path, run: Run) -> Manifest:
    """Make the store what the plans say, with as little work as that takes; the manifest comes last.

    Raises:
        ConfigError: no recording gave a window.
    """
    _write_private_map(plans, store.parent / "private")
    (store / ACCOUNTS).mkdir(parents=True, exist_ok=True)
    parts = Parts(store)
    parts.folder.mkdir(exist_ok=True)
    origins = Origins()
    jobs = {plan.path.name: _recording_jobs(plan, origins, parts.folder) for plan in plans}
    planned = {name: [parts.find(*_key(job)) for job in wanted] for name, wanted in jobs.items()}
    if set(parts.shards) != set(planned) or not all(parts.is_current(*shard) for shard in planned.items()):
        _take_down(store, parts.folder)
    for wave in _waves(plans, origins):
        _write_shards([(plan, jobs[plan.path.name]) for plan in wave], parts, run)
    for name in set(parts.shards) - set(planned):
        parts.retire(name)
    accounts = [parts.shards[name] for name in sorted(parts.shards)]
    manifest = manifest_of(accounts, plans)
    refuse_shared_subjects(accounts, manifest)
    manifest.published_counts = compare_with_published(
        [(plan.data_set, plan.layout, source, plan.split) for plan in plans for source in plan.sources],
        [(account.data_set, account.split, account.num_windows) for account in accounts],
    )
    if manifest.counts["num_windows"] == 0:
        reasons = "; ".join(sorted(set(manifest.quarantined.values()) | set(manifest.dropped)))
        raise ConfigError(f"{store}: no window came out of {len(plans)} shards; reasons: {reasons}")
    _finish(store, manifest, parts)
    return manifest


def run_locally(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterable[Result]:
    """The map of one process."""
    return map(function, items)


def _write_shards(shards: Sequence[tuple[ShardPlan, list[RecordingJob]]], parts: Parts, run: Run) -> None:
    """Bring the shards of some plans up to date."""
    wanted = [job for _, jobs in shards for job in jobs]
    for _ in run(make_part, [job for job in wanted if not _is_finished(parts.find(*_key(job)))]):
        pass
    parts.refresh()
    stale = [
        (plan, jobs)
        for plan, jobs in shards
        if not parts.is_current(plan.path.name, [parts.find(*_key(job)) for job in jobs])
    ]
    if stale:
        _take_down(parts.store, parts.folder)  # known before, but for recordings that have come out of quarantine
    for plan, _ in stale:
        if plan.path.name in parts.shards:
            parts.retire(plan.path.name)
    for account in run(assemble, [_shard_job(plan, jobs, parts) for plan, jobs in stale]):
        parts.shards[account.name] = account


def _shard_job(plan: ShardPlan, jobs: Sequence[RecordingJob], parts: Parts) -> ShardJob:
    places = [parts.find(*_key(job)) for job in jobs]
    assert None not in places, f"{plan.path}: a recording was not made into a part"
    return ShardJob(dataclasses.replace(plan, sources=()), tuple(filter(None, places)), parts.folder)


def _recording_jobs(plan: ShardPlan, origins: Origins, folder: Path) -> list[RecordingJob]:
    bare = dataclasses.replace(plan, sources=())
    return [RecordingJob(bare, source, origins.of(plan, source), folder) for source in plan.sources]


def _key(job: RecordingJob) -> tuple[str, str]:
    return job.plan.recording_id(job.source), job.origin


def _is_finished(place: Place | None) -> bool:
    return place is not None and place.account.quarantined is None


def _waves(plans: Sequence[ShardPlan], origins: Origins) -> Iterator[list[ShardPlan]]:
    wave: list[ShardPlan] = []
    num_bytes = 0
    for plan in plans:
        wave.append(plan)
        num_bytes += sum(origins.size(source) for source in plan.sources)
        if num_bytes >= WAVE_SOURCE_BYTES:
            yield wave
            wave, num_bytes = [], 0
    if wave:
        yield wave


def _take_down(store: Path, folder: Path) -> None:
    """Put the manifest away: from here on the store is not what it says."""
    if (store / MANIFEST).exists():
        (store / MANIFEST).replace(folder / BEFORE)


def _finish(store: Path, manifest: Manifest, parts: Parts) -> None:
    """Write the manifest and remove what the one before listed and this one does not."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # none, or none that can be read
        listed = json.loads((parts.folder / BEFORE).read_text()).get("files", [])
        for name in {file["name"] for file in listed} - {file["name"] for file in manifest.files}:
            (store / Path(name).name).unlink(missing_ok=True)
            fingerprints_beside(store / Path(name).name).unlink(missing_ok=True)
    prove_private(store)
    write_manifest(store, manifest)
    parts.remove()


def _write_private_map(plans: Sequence[ShardPlan], folder: Path) -> None:
    """Which file has which id, for the group's own eyes: mode 0600, outside the store."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lines = {plan.recording_id(source): str(source.path) for plan in plans for source in plan.sources}
    path = folder / "recordings.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(known | lines, file, indent=1, sort_keys=True)
    aside.replace(path)  # whole or not at all, and closed to others even where the old file was open to them
