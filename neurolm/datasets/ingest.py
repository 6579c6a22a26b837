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

from neurolm.config import ConfigError, Location, config, digest
from neurolm.datasets import LAYOUTS
from neurolm.datasets.dataset import EEGDataset, SourceFile
from neurolm.datasets.splits import SplitConfig, split_subjects
from neurolm.eeg.preprocessing import PreprocessingConfig, preprocess
from neurolm.eeg.privacy import key_fingerprint, keyed_id, load_key
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
    store: Location | None = None
    """Folder of the downstream store; null: ``store`` in ``out``."""
    pretraining_store: Location | None = None
    """Folder of the pre-training store; null: ``pretraining_store`` in ``out`` (used with ``pretraining_root``)."""
    tokens: Literal["none", "bfloat16", "float32"] = "none"
    """What stages 2 and 3 read: signals (none), or EEG tokens that the frozen encoder wrote once, in this precision.

    float32 gives the losses of signals; bfloat16 takes half the space and rounds the features.
    """
    token_store: Location | None = None
    """Folder of the downstream store's EEG tokens; null: ``token_store`` in ``out``."""
    pretraining_token_store: Location | None = None
    """Folder of the pre-training store's EEG tokens; null: ``pretraining_token_store`` in ``out``."""


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
        """The store of unlabelled windows, used where ``data.pretraining_root`` is set."""
        return self.data.pretraining_store or self.out / "pretraining_store"

    @property
    def token_store(self) -> Path:
        """The EEG tokens of the downstream store."""
        return self.data.token_store or self.out / "token_store"

    @property
    def pretraining_token_store(self) -> Path:
        """The EEG tokens of the store of unlabelled windows."""
        return self.data.pretraining_token_store or self.out / "pretraining_token_store"

    @property
    def has_pretraining_store(self) -> bool:
        """Whether stages 1 and 2 learn from a store of their own."""
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
    with ShardWriter(plan.path) as writer:
        for source in plan.sources:
            recording_id = _recording_id(plan, source)
            try:
                windows, duration_s = _windows_of(plan, source, recording_id, dropped)
            except (ValueError, OSError, RuntimeError) as error:
                account.quarantined[recording_id] = _reason(error, source, recording_id)
                continue
            writer.write(windows)
            account.hours += duration_s / 3600
            account.recordings.append(recording_id)
            account.subjects.append(_subject_id(plan, source))
            account.digests += [window_digest(window, plan.split) for window in windows]
            labels.update(str(window.label) for window in windows)
            account.num_windows += len(windows)
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
    if manifest.counts["num_windows"] == 0:
        reasons = "; ".join(sorted(set(manifest.quarantined.values()) | set(manifest.dropped)))
        raise ConfigError(f"{store}: no window came out of {len(plans)} shards; reasons: {reasons}")
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
            plans.append(ShardPlan(path, split, name, layout, tuple(shard), config.preprocessing, key))
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
                subject=_subject_id(plan, source),
                recording=recording_id,
                start_s=window.start_s,
                label=window.label,
            )
        )
    return stored, duration_s


def _recording_id(plan: ShardPlan, source: SourceFile) -> str:
    return keyed_id(plan.key, "recording", f"{plan.layout.name}/{source.recording}")


def _subject_id(plan: ShardPlan, source: SourceFile) -> str:
    return keyed_id(plan.key, "subject", f"{plan.layout.name}/{source.subject}")


def _reason(error: Exception, source: SourceFile, recording_id: str) -> str:
    """The error without the file's own name, which may identify a person."""
    message = " ".join(str(error).split())
    for name in (str(source.path), source.recording, source.path.name):
        message = message.replace(name, recording_id)
    return f"{type(error).__name__}: {message}"


def _write_private_map(plans: Sequence[ShardPlan], folder: Path) -> None:
    """Which file has which id, for the group's own eyes: mode 0600, outside the store."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lines = {_recording_id(plan, source): str(source.path) for plan in plans for source in plan.sources}
    path = folder / "recordings.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(known | lines, file, indent=1, sort_keys=True)
    aside.replace(path)  # whole or not at all, and closed to others even where the old file was open to them


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
        files=[{"name": a.name, "split": a.split, "num_windows": a.num_windows, "sha256": a.sha256} for a in accounts],
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
    return digest({"files": files, "layouts": layouts, "preprocessing": preprocessing})
