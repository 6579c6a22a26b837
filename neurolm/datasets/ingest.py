"""From folders of recordings to a sharded store: what a Ray job runs on many nodes and one process runs alone.

A store is planned first (which recordings go to which shard, a function of the files alone). Then every recording is
read, preprocessed and cut on its own (`make_part`), shards are put together from these parts (`assemble`), and last the
manifest is put beside them. Killed anywhere and run again, it goes on where it was and ends with the same bytes; with
recordings added, it reads these alone and writes the shards anew that change.

A broken recording never stops a run: it is quarantined under its keyed id with the reason, counted, and tried again by
the next run.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from neurolm.config import ConfigError, UserError
from neurolm.datasets.accounting import RecordingAccount, ShardAccount, manifest_of, refuse_shared_subjects
from neurolm.datasets.data_config import DataConfig, DataSetConfig, PrivacyConfig, Step
from neurolm.datasets.dataset import DataSetError, SourceFile
from neurolm.datasets.ledger import STORED, Entry, label_name
from neurolm.datasets.parts import ACCOUNTS, Parts, PartWriter, Place, account_path, write_account
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
from neurolm.eeg.channels import known_name
from neurolm.eeg.fingerprint import fingerprint
from neurolm.eeg.fingerprint_files import (
    RecordingFingerprint,
    fingerprints_beside,
    move_fingerprints,
    write_fingerprints,
)
from neurolm.eeg.manifest import MANIFEST
from neurolm.eeg.preprocessing import preprocess
from neurolm.eeg.privacy import foreign_words, recording_called, told
from neurolm.eeg.privacy_proof import prove_private
from neurolm.eeg.quality import judge, rejection
from neurolm.eeg.recording import Recording
from neurolm.eeg.scratch import release
from neurolm.eeg.shards import Manifest, ShardWriter, StoredWindow, write_manifest
from neurolm.eeg.windows import Window, unusable

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


@dataclasses.dataclass(frozen=True)
class RecordingJob:
    """One recording, to be made into a part on any node."""

    plan: ShardPlan
    """Without its sources."""
    source: SourceFile
    origin: str
    folder: Path
    """Where parts are put."""


@dataclasses.dataclass(frozen=True)
class ShardJob:
    """One shard, to be put together on any node."""

    plan: ShardPlan
    places: tuple[Place, ...]
    """Its recordings, in order."""
    folder: Path
    """Where it is written before it appears in the store."""


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


def make_part(job: RecordingJob) -> None:
    """Read, preprocess and cut a recording, and write its windows and its account."""
    plan, source = job.plan, job.source
    account = RecordingAccount(plan.recording_id(source), plan.subject_id(source), job.origin)
    writer, entry = PartWriter(job.folder, account, plan.signal_dtype), Entry(account.subject)
    try:
        with recording_called(account.recording):
            original = plan.layout.read(source)
            entry.duration_s = original.duration_s
            recording = preprocess(original, plan.preprocessing, plan.layout.mains_hz)
            windows, dropped = plan.layout.windows(source, recording)
            _refuse_undeclared_labels(plan, windows)
    except (ValueError, OSError, RuntimeError) as error:
        if _is_machines(error):
            raise
        account.quarantined = reason_of(source, error, account.recording)
    else:
        for why, number in dropped.items():
            entry.not_cut[told(why)] += number
        # A channel's own name may be anything that somebody typed; only the vocabulary's are written down.
        left_out = (known_name(name) or "not in the vocabulary" for name in recording.left_out)
        account.channels_left_out = dict(Counter(left_out))
        writer.write(_stored(plan, account, original, recording, windows, entry))
        account.dropped, account.num_windows = dict(entry.dropped), len(entry.spans.get(STORED, ()))
        if account.num_windows:
            account.hours = entry.duration_s / 3600
            landmarks = fingerprint(recording).within(entry.spans[STORED])
            writer.write_fingerprint(RecordingFingerprint(plan.data_set, account.subject, account.recording, landmarks))
        else:
            reasons = ", ".join(f"{why}: {number}" for why, number in sorted(entry.dropped.items())) or "none was cut"
            account.quarantined = f"RecordingError: no window of it can be stored ({reasons})"
    account.ledger.add(entry, is_quarantined=account.quarantined is not None)
    writer.close()


def assemble(job: ShardJob) -> ShardAccount:
    """Write a shard from its parts, then its account; the parts are removed."""
    written = job.folder / job.plan.path.name
    with ShardWriter(written, signal_dtype=job.plan.signal_dtype) as writer:
        for place in job.places:
            writer.write(place.windows())
    fingerprints = write_fingerprints(
        written, [place.fingerprint() for place in job.places if place.account.num_windows]
    )
    with written.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    account = ShardAccount(
        name=job.plan.path.name,
        split=job.plan.split,
        data_set=job.plan.data_set,
        sha256=sha256,
        num_bytes=written.stat().st_size,
        parts=[place.account for place in job.places],
        fingerprints_sha256=fingerprints,
        digests=writer.digests,
    )
    move_fingerprints(written, job.plan.path)
    written.replace(job.plan.path)
    write_account(account_path(job.plan.path.parent, account.name), account, job.folder)
    for place in job.places:
        if place.file.suffix == ".arrow":
            place.file.with_suffix(".json").unlink(missing_ok=True)
            fingerprints_beside(place.file).unlink(missing_ok=True)
            place.file.unlink(missing_ok=True)
    return account


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


def _stored(
    plan: ShardPlan,
    account: RecordingAccount,
    original: Recording,
    recording: Recording,
    windows: Sequence[Window],
    entry: Entry,
) -> Iterator[StoredWindow]:
    """The windows that can be trained on, as they are stored; all are entered, with their quality or their reason."""
    labels: Counter[str] = Counter()
    rate_hz = recording.sampling_rate_hz
    judged = judge(original, windows, plan.quality, window_rate_hz=rate_hz, mains_hz=plan.layout.mains_hz)
    for window, flags in zip(windows, judged, strict=True):
        with np.errstate(over="ignore"):
            signal = window.signal.astype(plan.signal_dtype)
        release(recording.signal)
        release(original.signal)
        too_large = None if np.isfinite(signal).all() else f"too large for {plan.signal_dtype}"
        reason = unusable(window) or too_large or rejection(flags, plan.quality)
        entry.cut(window.label, window.start_s, signal.shape[1] / rate_hz, reason)
        if reason is not None:
            continue
        entry.channels = window.channel_indices
        entry.flags.append(flags)
        labels[label_name(window.label)] += 1
        yield StoredWindow(
            signal=signal,
            channel_indices=window.channel_indices,
            data_set=plan.data_set,
            subject=account.subject,
            recording=account.recording,
            start_s=window.start_s,
            label=window.label,
            quality=flags,
        )
    account.windows_by_label = dict(labels)


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


def _is_machines(error: Exception) -> bool:
    """Whether a failure says something about this machine, and nothing about the recording."""
    machine = {errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
    return any(isinstance(each, OSError) and each.errno in machine for each in (error, error.__cause__))


def _refuse_undeclared_labels(plan: ShardPlan, windows: Iterable[Window]) -> None:
    if {window.label for window in windows} - {None, *plan.layout.labels}:
        declared = ", ".join(plan.layout.labels) or "none"
        raise DataSetError(f"a label that {plan.layout.title} does not declare; declared: {declared}")


def reason_of(source: SourceFile, error: Exception, instead: str) -> str:
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
