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

from neurolm.config import ConfigError, UserError
from neurolm.datasets.accounting import ShardAccount, manifest_of, refuse_shared_subjects
from neurolm.datasets.data_config import DataConfig, DataSetConfig, PrivacyConfig, Step
from neurolm.datasets.dataset import DataSetError, SourceFile
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
from neurolm.eeg.fingerprint import Fingerprint, fingerprint
from neurolm.eeg.fingerprint_files import RecordingFingerprint, write_fingerprints
from neurolm.eeg.preprocessing import preprocess
from neurolm.eeg.privacy import foreign_words, recording_called, told
from neurolm.eeg.privacy_proof import prove_private
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
    fingerprints: list[RecordingFingerprint] = []
    with ShardWriter(plan.path) as writer:
        for source in plan.sources:
            recording_id = plan.recording_id(source)
            try:
                with recording_called(recording_id):
                    windows, landmarks, duration_s = _windows_of(plan, source, recording_id, dropped, left_out)
            except (ValueError, OSError, RuntimeError) as error:
                account.quarantined[recording_id] = reason_of(plan, source, error, recording_id)
                continue
            writer.write(windows)
            if windows:
                fingerprints.append(
                    RecordingFingerprint(plan.data_set, plan.subject_id(source), recording_id, landmarks)
                )
            account.hours += duration_s / 3600
            account.recordings.append(recording_id)
            account.subjects.append(plan.subject_id(source))
            account.digests += [window_digest(window, plan.split) for window in windows]
            labels.update(str(window.label) for window in windows)
            account.num_windows += len(windows)
        account.fingerprints_sha256 = write_fingerprints(plan.path, fingerprints)  # before the shard appears
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
    refuse_shared_subjects(accounts, manifest)
    manifest.published_counts = compare_with_published(
        [(plan.data_set, plan.layout, source, plan.split) for plan in plans for source in plan.sources],
        [(account.data_set, account.split, account.num_windows) for account in accounts],
    )
    if manifest.counts["num_windows"] == 0:
        reasons = "; ".join(sorted(set(manifest.quarantined.values()) | set(manifest.dropped)))
        raise ConfigError(f"{store}: no window came out of {len(plans)} shards; reasons: {reasons}")
    prove_private(store)
    write_manifest(store, manifest)
    return manifest


def run_locally(plans: Sequence[ShardPlan]) -> Iterable[ShardAccount]:
    """The map of one process."""
    return map(write_shard, plans)


def _windows_of(
    plan: ShardPlan, source: SourceFile, recording_id: str, dropped: Counter[str], left_out: Counter[str]
) -> tuple[list[StoredWindow], Fingerprint, float]:
    recording = plan.layout.read(source)
    duration_s = recording.signal.shape[1] / recording.sampling_rate_hz
    recording = preprocess(recording, plan.preprocessing, plan.layout.mains_hz)
    windows, reasons = plan.layout.windows(source, recording)
    for why, number in reasons.items():
        dropped[told(why)] += number
    stored = []
    for window in windows:
        if window.label is not None and window.label not in plan.layout.labels:
            declared = ", ".join(plan.layout.labels) or "none"
            raise DataSetError(f"a label that {plan.layout.title} does not declare; declared: {declared}")
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
    rate = recording.sampling_rate_hz
    spans = [(window.start_s, window.start_s + window.signal.shape[1] / rate) for window in stored]
    return stored, fingerprint(recording).within(spans), duration_s


def reason_of(plan: ShardPlan, source: SourceFile, error: Exception, instead: str) -> str:
    """Why a recording could not be used, in words that may be kept: nothing of its path, header or annotations.

    Our own errors say what was expected; of others only the kind is told, because their texts quote whatever they met.
    """
    if not isinstance(error, UserError):
        return foreign_words(error)
    path = source.path
    names = [str(path), str(path.resolve()), str(path.parent), path.name, path.stem, *Path(source.recording).parts]
    message = str(error)
    if error.__cause__ is not None:
        message = message.replace(str(error.__cause__).strip().split("\n")[0], foreign_words(error.__cause__))
    return f"{type(error).__name__}: {told(message, [*names, source.recording], instead)}"


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
