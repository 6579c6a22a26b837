"""From folders of recordings to a sharded store: what a Ray job runs on many nodes and one process runs alone.

A store is planned first (which recordings go to which shard, a function of the files alone), then every shard is
written on its own (`write_shard`: read, preprocess, cut, write, account), and last the manifest is put beside them.
A broken recording never stops a run: it is quarantined under its keyed id with the reason, and counted.
"""

import dataclasses
import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from neurolm.config import ConfigError, Location, UserError, config, digest
from neurolm.datasets import LAYOUTS
from neurolm.datasets.dataset import DataSetError, EEGDataset, SourceFile
from neurolm.datasets.splits import SplitConfig, split_subjects
from neurolm.eeg.fingerprint import FINGERPRINT_VERSION, Fingerprint, fingerprint
from neurolm.eeg.fingerprint_files import DIGEST, RecordingFingerprint, write_fingerprints
from neurolm.eeg.preprocessing import PreprocessingConfig, preprocess
from neurolm.eeg.privacy import foreign_words, key_fingerprint, keyed_id, load_key, recording_called, told
from neurolm.eeg.privacy_proof import prove_private
from neurolm.eeg.shards import Manifest, ShardWriter, StoredWindow, combine_digests, window_digest, write_manifest
from neurolm.eeg.windows import unusable

logger = logging.getLogger(__name__)

SHARD_SOURCE_BYTES = 32 * 2**20
"""Recordings are collected into one shard until their files reach this size."""


@config
class DataSetConfig:
    """One data set below ``data.root``."""

    layout: str
    """Which published layout the folder has: workload, hmc or motor_imagery."""
    folder: Path = Path(".")
    """Folder of this data set, relative to ``data.root``."""


@config
class PrivacyConfig:
    """How subjects and recordings are named."""

    key_file: Location | None = None
    """File of the secret key for keyed ids, one per group; null: privacy.key in NEUROLM_HOME (~/.neurolm)."""


@config
class DataConfig:
    """Which recordings, how they are preprocessed and split, and where the stores lie."""

    root: Location | None = None
    """Folder of the raw recordings of the downstream data sets."""
    sets: dict[str, DataSetConfig] = Field(default_factory=lambda: {"workload": DataSetConfig(layout="workload")})
    """Data sets below ``root``, by the name that tasks use."""
    pretraining_root: Location | None = None
    """Folder in EEGMMIDB's layout that stages 1 and 2 learn from; null: the training subjects of ``root``."""
    pretraining_window_s: Annotated[float, Field(gt=0)] = 16.0
    """Length of a pre-training window in seconds; the paper fills 1024 tokens: 16 s at 64 channels."""
    split: SplitConfig = Field(default_factory=SplitConfig)
    """How subjects are divided into train, val and test."""
    preprocessing: PreprocessingConfig = Field(default_factory=PreprocessingConfig)
    """Band-pass, notch and sampling rate; the defaults are the paper's."""
    privacy: PrivacyConfig = Field(default_factory=PrivacyConfig)
    """How subjects and recordings are named."""
    allow_leakage: Annotated[str, Field(min_length=1)] | None = None
    """Why training data may share subjects or signals with a test split; null: such training is refused."""
    store: Location | None = None
    """Folder of the downstream store; null: ``store`` in ``out``."""
    pretraining_store: Location | None = None
    """Folder of the pre-training store; null: ``pretraining_store`` in ``out`` (used with ``pretraining_root``)."""


@config
class Step:
    """Settings that every step of the pipeline takes under the same names."""

    out: Location
    """Folder of the results."""
    data: DataConfig = Field(default_factory=DataConfig)
    """Recordings and stores."""
    seed: int = 0
    """Seed of whatever the step draws."""
    workers: Annotated[int, Field(gt=0)] = 1
    """Training workers; other steps take what the cluster has."""
    budget: Literal["quick", "full"] = "full"
    """quick applies the settings below ``quick:`` in the YAML file."""

    @property
    def store(self) -> Path:
        """The downstream store."""
        return self.data.store or self.out / "store"

    @property
    def pretraining_store(self) -> Path:
        """The store of unlabelled windows, used where there is one (`has_pretraining_data`)."""
        return self.data.pretraining_store or self.out / "pretraining_store"

    @property
    def has_pretraining_data(self) -> bool:
        """Whether stages 1 and 2 have a store of their own."""
        return self.data.pretraining_root is not None or self.data.pretraining_store is not None


@dataclasses.dataclass(frozen=True)
class ShardPlan:
    """Everything that writing one shard needs, on any node."""

    path: Path
    split: str
    data_set: str
    layout: EEGDataset
    sources: tuple[SourceFile, ...]
    preprocessing: PreprocessingConfig
    key: bytes
    may_share_subjects: bool = False
    """Whether the split in force may put a subject into several splits."""

    def recording_id(self, source: SourceFile) -> str:
        """The recording's keyed id."""
        return keyed_id(self.key, "recording", f"{self.layout.name}/{source.recording}")

    def subject_id(self, source: SourceFile) -> str:
        """The subject's keyed id."""
        return keyed_id(self.key, "subject", f"{self.layout.people or self.layout.name}/{source.subject}")


@dataclasses.dataclass
class ShardAccount:
    """What went into a shard, what came out, and what was left out and why. Totals add up to the input."""

    name: str
    split: str
    data_set: str
    sha256: str | None
    num_windows: int = 0
    num_sources: int = 0
    hours: float = 0.0
    recordings: list[str] = dataclasses.field(default_factory=list)
    subjects: list[str] = dataclasses.field(default_factory=list)
    windows_by_label: dict[str, int] = dataclasses.field(default_factory=dict)
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)
    quarantined: dict[str, str] = dataclasses.field(default_factory=dict)
    digests: list[str] = dataclasses.field(default_factory=list)
    fingerprints_sha256: str | None = None


def plan_downstream(config: DataConfig, store: Path) -> list[ShardPlan]:
    """Shards of the labelled data sets below ``data.root``, split by subject. Raises UserError."""
    if config.root is None:
        raise ConfigError("data.root is not set; give the folder of your recordings: data.root=DIR")
    plans = []
    for name, data_set in config.sets.items():
        layout = layout_named(data_set.layout)
        sources = layout.find(config.root / data_set.folder)
        splits = split_subjects({source.subject for source in sources}, config.split, layout.paper_counts)
        plans += _plan_set(name, layout, sources, splits, config, store)
    return plans


def plan_pretraining(config: DataConfig, store: Path) -> list[ShardPlan]:
    """Shards of unlabelled windows below ``data.pretraining_root``; every tenth subject validates."""
    if config.pretraining_root is None:
        raise ConfigError("data.pretraining_root is not set")
    layout = dataclasses.replace(layout_named("motor_imagery"), window_s=config.pretraining_window_s)  # type: ignore[call-arg]
    sources = layout.find(config.pretraining_root)
    subjects = sorted({source.subject for source in sources})
    if len(subjects) < 2:
        raise ConfigError(f"{config.pretraining_root}: found 1 subject; pre-training needs 2 or more (one validates)")
    splits = {subject: "val" if place % 10 == 1 else "train" for place, subject in enumerate(subjects)}
    return _plan_set("motor_imagery", layout, sources, splits, config, store)


def layout_named(name: str) -> EEGDataset:
    """The data set whose published layout has this name. Raises ConfigError."""
    if name not in LAYOUTS:
        raise ConfigError(f"data.sets: layout {name!r} is not known; known layouts: {', '.join(sorted(LAYOUTS))}")
    return LAYOUTS[name]


def write_shard(plan: ShardPlan) -> ShardAccount:
    """Read, preprocess, cut and write the recordings of one shard; the file appears whole or not at all."""
    account = ShardAccount(plan.path.name, plan.split, plan.data_set, None, num_sources=len(plan.sources))
    dropped: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    fingerprints: list[RecordingFingerprint] = []
    with ShardWriter(plan.path) as writer:
        for source in plan.sources:
            recording_id = plan.recording_id(source)
            try:
                with recording_called(recording_id):
                    windows, landmarks, duration_s = _windows_of(plan, source, recording_id, dropped)
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
    return account


def write_store(
    plans: Sequence[ShardPlan], store: Path, run: Callable[[Sequence[ShardPlan]], Iterable[ShardAccount]]
) -> Manifest:
    """Write all shards with ``run`` (a map, local or distributed) and the manifest last. Raises UserError."""
    store.mkdir(parents=True, exist_ok=True)
    (store / "manifest.json").unlink(missing_ok=True)
    _write_private_map(plans, store.parent / "private")
    accounts = sorted(run(plans), key=lambda account: account.name)
    manifest = _manifest(accounts, plans)
    _refuse_shared_subjects(accounts, manifest)
    if manifest.counts["num_windows"] == 0:
        reasons = "; ".join(sorted(set(manifest.quarantined.values()) | set(manifest.dropped)))
        raise ConfigError(f"{store}: no window came out of {len(plans)} shards; reasons: {reasons}")
    prove_private(store)
    write_manifest(store, manifest)
    return manifest


def run_locally(plans: Sequence[ShardPlan]) -> Iterable[ShardAccount]:
    """The map of one process."""
    return map(write_shard, plans)


def _plan_set(
    name: str,
    layout: EEGDataset,
    sources: Sequence[SourceFile],
    splits: dict[str, Any],
    config: DataConfig,
    store: Path,
) -> list[ShardPlan]:
    key = load_key(config.privacy.key_file)
    plans = []
    for split in ("train", "val", "test"):
        members = [source for source in sources if splits[source.subject] == split]
        for number, shard in enumerate(_by_size(members)):
            path = store / f"{split}-{name}-{number:05d}.parquet"
            shared = layout.splits_share_subjects
            plans.append(ShardPlan(path, split, name, layout, tuple(shard), config.preprocessing, key, shared))
    return plans


def _by_size(sources: Sequence[SourceFile]) -> Iterable[list[SourceFile]]:
    shard: list[SourceFile] = []
    size = 0
    for source in sources:
        shard.append(source)
        size += source.path.stat().st_size
        if size >= SHARD_SOURCE_BYTES:
            yield shard
            shard, size = [], 0
    if shard:
        yield shard


def _windows_of(
    plan: ShardPlan, source: SourceFile, recording_id: str, dropped: Counter[str]
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


def _refuse_shared_subjects(accounts: Sequence[ShardAccount], manifest: Manifest) -> None:
    """No person is in two splits of a data set, unless its published rule says so. Raises ConfigError."""
    splits: dict[tuple[str, str], set[str]] = {}
    for account in accounts:
        if account.data_set not in manifest.shared_subjects:
            for subject in account.subjects:
                splits.setdefault((account.data_set, subject), set()).add(account.split)
    if shared := sorted(who for who, found in splits.items() if len(found) > 1):
        data_set, subject = shared[0]
        raise ConfigError(
            f"data set {data_set}: {len(shared)} subjects are in more than one split (first: {subject}, in "
            f"{' and '.join(sorted(splits[shared[0]]))}); divide the recordings by subject"
        )


def _manifest(accounts: Sequence[ShardAccount], plans: Sequence[ShardPlan]) -> Manifest:
    windows_by_split: Counter[str] = Counter()
    windows_by_label: dict[str, Counter[str]] = {}
    dropped: Counter[str] = Counter()
    for account in accounts:
        windows_by_split[account.split] += account.num_windows
        windows_by_label.setdefault(account.data_set, Counter()).update(account.windows_by_label)
        dropped.update(account.dropped)
    return Manifest(
        data_digest=combine_digests(digest for account in accounts for digest in account.digests),
        files=[
            {"name": a.name, "split": a.split, "num_windows": a.num_windows, "sha256": a.sha256}
            | {DIGEST: a.fingerprints_sha256}
            for a in accounts
        ],
        counts={
            "num_windows": sum(account.num_windows for account in accounts),
            "num_recordings": sum(len(account.recordings) for account in accounts),
            "num_subjects": len({subject for account in accounts for subject in account.subjects}),
            "num_sources": sum(account.num_sources for account in accounts),
            "hours": round(sum(account.hours for account in accounts), 4),
        },
        windows_by_split=dict(windows_by_split),
        windows_by_label={name: dict(counter) for name, counter in windows_by_label.items()},
        dropped=dict(dropped),
        quarantined={key: reason for account in accounts for key, reason in account.quarantined.items()},
        preprocessing=dataclasses.asdict(plans[0].preprocessing),
        privacy_key_fingerprint=key_fingerprint(plans[0].key),
        shared_subjects=sorted({plan.data_set for plan in plans if plan.may_share_subjects}),
    )


def plan_digest(plans: Sequence[ShardPlan]) -> str:
    """Changes when a file, a split or a setting of preprocessing or windows changes; then a store is written again."""
    files = [
        [plan.path.name, source.recording, source.path.stat().st_size, source.path.stat().st_mtime_ns]
        for plan in plans
        for source in plan.sources
    ]
    layouts = sorted({repr(plan.layout) for plan in plans})
    preprocessing = [dataclasses.asdict(plan.preprocessing) for plan in plans[:1]]
    versions = {"fingerprints": FINGERPRINT_VERSION}
    return digest({"files": files, "layouts": layouts, "preprocessing": preprocessing, "versions": versions})
