"""The two kinds of work behind a store, each a function of one small job that any process on any node can do."""

import dataclasses
import errno
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from neurolm.config import UserError
from neurolm.datasets.accounting import RecordingAccount, ShardAccount
from neurolm.datasets.dataset import DataSetError, SourceFile
from neurolm.datasets.ledger import STORED, Entry, label_name
from neurolm.datasets.parts import PartWriter, Place, account_path, write_account
from neurolm.datasets.plan import ShardPlan
from neurolm.eeg.channels import known_name
from neurolm.eeg.fingerprint import fingerprint
from neurolm.eeg.fingerprint_files import (
    RecordingFingerprint,
    fingerprints_beside,
    move_fingerprints,
    write_fingerprints,
)
from neurolm.eeg.preprocessing import preprocess
from neurolm.eeg.privacy import foreign_words, recording_called, told
from neurolm.eeg.quality import judge, rejection
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


def _is_machines(error: Exception) -> bool:
    """Whether a failure says something about this machine, and nothing about the recording."""
    machine = {errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
    behind = error, error.__cause__, error.__context__  # readers hide the cause, whose text may quote a header
    return any(isinstance(each, OSError) and each.errno in machine for each in behind)


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
