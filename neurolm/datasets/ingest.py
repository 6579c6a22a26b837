"""From folders of recordings to a sharded store: what a Ray job runs on many nodes and one process runs alone.

A store is planned first (which recordings go to which shard, a function of the files alone), then every shard is
written on its own (`write_shard`: read, preprocess, cut, write, account), and last the manifest is put beside them.
A broken recording never stops a run: it is quarantined under its keyed id with the reason, and counted.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from neurolm.config import ConfigError
from neurolm.datasets.accounting import ShardAccount, manifest_of
from neurolm.datasets.data_config import DataConfig, DataSetConfig, PrivacyConfig, Step
from neurolm.datasets.dataset import SourceFile
from neurolm.datasets.plan import (
    ShardPlan,
    layout_described,
    layout_named,
    layout_of,
    plan_digest,
    plan_downstream,
    plan_pretraining,
)
from neurolm.datasets.published_counts import compare_with_published
from neurolm.eeg.channels import known_name
from neurolm.eeg.preprocessing import preprocess
from neurolm.eeg.shards import Manifest, ShardWriter, StoredWindow, window_digest, write_manifest
from neurolm.eeg.windows import unusable

__all__ = [
    "DataConfig", "DataSetConfig", "PrivacyConfig", "ShardAccount", "ShardPlan", "Step", "layout_described",
    "layout_named", "layout_of", "plan_digest", "plan_downstream", "plan_pretraining", "run_locally", "write_shard",
    "write_store",
]  # fmt: skip


def write_shard(plan: ShardPlan) -> ShardAccount:
    """Read, preprocess, cut and write the recordings of one shard; the file appears whole or not at all."""
    account = ShardAccount(plan.path.name, plan.split, plan.data_set, None, num_sources=len(plan.sources))
    dropped: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    with ShardWriter(plan.path) as writer:
        for source in plan.sources:
            recording_id = plan.recording_id(source)
            try:
                windows, duration_s = _windows_of(plan, source, recording_id, dropped, left_out)
            except (ValueError, OSError, RuntimeError) as error:
                account.quarantined[recording_id] = _reason(error, source, recording_id)
                continue
            writer.write(windows)
            account.hours += duration_s / 3600
            account.recordings.append(recording_id)
            account.subjects.append(plan.subject_id(source))
            account.digests += [window_digest(window, plan.split) for window in windows]
            labels.update(str(window.label) for window in windows)
            account.num_windows += len(windows)
    account.sha256 = hashlib.sha256(plan.path.read_bytes()).hexdigest()
    account.windows_by_label, account.dropped = dict(labels), dict(dropped)
    account.channels_left_out = dict(left_out)
    return account


def write_store(
    plans: Sequence[ShardPlan], store: Path, run: Callable[[Sequence[ShardPlan]], Iterable[ShardAccount]]
) -> Manifest:
    """Write all shards with ``run`` (a map, local or distributed) and the manifest last. Raises UserError."""
    store.mkdir(parents=True, exist_ok=True)
    (store / "manifest.json").unlink(missing_ok=True)
    _write_private_map(plans, store.parent / "private")
    accounts = sorted(run(plans), key=lambda account: account.name)
    manifest = manifest_of(accounts, plans)
    manifest.published_counts = compare_with_published(
        [(plan.data_set, plan.layout, source, plan.split) for plan in plans for source in plan.sources],
        [(account.data_set, account.split, account.num_windows) for account in accounts],
    )
    if manifest.counts["num_windows"] == 0:
        reasons = "; ".join(sorted(set(manifest.quarantined.values()) | set(manifest.dropped)))
        raise ConfigError(f"{store}: no window came out of {len(plans)} shards; reasons: {reasons}")
    write_manifest(store, manifest)
    return manifest


def run_locally(plans: Sequence[ShardPlan]) -> Iterable[ShardAccount]:
    """The map of one process."""
    return map(write_shard, plans)


def _windows_of(
    plan: ShardPlan, source: SourceFile, recording_id: str, dropped: Counter[str], left_out: Counter[str]
) -> tuple[list[StoredWindow], float]:
    recording = plan.layout.read(source)
    duration_s = recording.signal.shape[1] / recording.sampling_rate_hz
    recording = preprocess(recording, plan.preprocessing, plan.layout.mains_hz)
    windows, reasons = plan.layout.windows(source, recording)
    dropped.update(reasons)
    stored = []
    for window in windows:
        if reason := unusable(window):
            dropped[reason] += 1
            continue
        stored.append(
            StoredWindow(
                signal=window.signal,
                channel_indices=window.channel_indices,
                data_set=plan.data_set,
                subject=plan.subject_id(source),
                recording=recording_id,
                start_s=window.start_s,
                label=window.label,
            )
        )
    # A channel's own name may be anything that somebody typed; only the vocabulary's are written down.
    left_out.update(known_name(name) or "not in the vocabulary" for name in recording.left_out)
    return stored, duration_s


def _reason(error: Exception, source: SourceFile, recording_id: str) -> str:
    """The error without the file's own name, which may identify a person."""
    message = " ".join(str(error).split())
    for name in (str(source.path), source.recording, source.path.name):
        message = message.replace(name, recording_id)
    return f"{type(error).__name__}: {message}"


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
