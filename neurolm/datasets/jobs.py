"""The two kinds of work behind a store, each a function of one small job that any process on any node can do."""

import dataclasses
import errno
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from neurolm.datasets.accounting import RecordingAccount, ShardAccount
from neurolm.datasets.dataset import SourceFile
from neurolm.datasets.parts import PartWriter, Place, account_path, write_account
from neurolm.datasets.plan import ShardPlan
from neurolm.eeg.preprocessing import preprocess
from neurolm.eeg.recording import Recording
from neurolm.eeg.scratch import release
from neurolm.eeg.shards import ShardWriter, StoredWindow
from neurolm.eeg.windows import Window, unusable


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


def make_part(job: RecordingJob) -> None:
    """Read, preprocess and cut a recording, and write its windows and its account."""
    plan, source = job.plan, job.source
    account = RecordingAccount(plan.recording_id(source), plan.subject_id(source), job.origin)
    writer = PartWriter(job.folder, account, plan.signal_dtype)
    try:
        recording = plan.layout.read(source)
        duration_s = recording.duration_s
        recording = preprocess(recording, plan.preprocessing, plan.layout.mains_hz)
        windows, dropped = plan.layout.windows(source, recording)
    except (ValueError, OSError, RuntimeError) as error:
        if _is_machines(error):
            raise
        account.quarantined = _reason(error, source, account.recording)
        writer.close()
        return
    account.hours = duration_s / 3600
    account.dropped = dict(dropped)
    writer.write(_stored(plan, account, recording, windows))


def assemble(job: ShardJob) -> ShardAccount:
    """Write a shard from its parts, then its account; the parts are removed."""
    written = job.folder / job.plan.path.name
    with ShardWriter(written, signal_dtype=job.plan.signal_dtype) as writer:
        for place in job.places:
            writer.write(place.windows())
    with written.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    account = ShardAccount(
        name=job.plan.path.name,
        split=job.plan.split,
        data_set=job.plan.data_set,
        sha256=sha256,
        num_bytes=written.stat().st_size,
        parts=[place.account for place in job.places],
        digests=writer.digests,
    )
    written.replace(job.plan.path)
    write_account(account_path(job.plan.path.parent, account.name), account, job.folder)
    for place in job.places:
        if place.file.suffix == ".arrow":
            place.file.with_suffix(".json").unlink(missing_ok=True)
            place.file.unlink(missing_ok=True)
    return account


def _stored(
    plan: ShardPlan, account: RecordingAccount, recording: Recording, windows: Iterable[Window]
) -> Iterator[StoredWindow]:
    """The windows that can be trained on, as they are stored; all are counted in the account."""
    labels: Counter[str] = Counter()
    dropped = Counter(account.dropped)
    for window in windows:
        with np.errstate(over="ignore"):
            signal = window.signal.astype(plan.signal_dtype)
        release(recording.signal)
        reason = unusable(window) or ("" if np.isfinite(signal).all() else f"too large for {plan.signal_dtype}")
        if reason:
            dropped[reason] += 1
            continue
        labels[str(window.label)] += 1
        yield StoredWindow(
            signal=signal,
            channel_indices=window.channel_indices,
            data_set=plan.data_set,
            subject=account.subject,
            recording=account.recording,
            start_s=window.start_s,
            label=window.label,
        )
    account.num_windows = labels.total()
    account.windows_by_label, account.dropped = dict(labels), dict(dropped)


def _is_machines(error: Exception) -> bool:
    """Whether a failure says something about this machine, and nothing about the recording."""
    machine = {errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
    return any(isinstance(each, OSError) and each.errno in machine for each in (error, error.__cause__))


def _reason(error: Exception, source: SourceFile, recording_id: str) -> str:
    """The error without the file's own name, which may identify a person."""
    message = " ".join(str(error).split())
    for name in (str(source.path), source.recording, source.path.name):
        message = message.replace(name, recording_id)
    return f"{type(error).__name__}: {message}"
