"""The plan of a store: which recordings go to which shard, a function of the files and settings alone."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from neurolm.config import ConfigError, build, digest
from neurolm.datasets import DECLARED_LAYOUTS, LAYOUTS
from neurolm.datasets.assignment import assign
from neurolm.datasets.data_config import DataConfig, DataSetConfig
from neurolm.datasets.dataset import Assignment, EEGDataset, SourceFile, by_subject
from neurolm.datasets.splits import SPLITS, Split
from neurolm.eeg.fingerprint import FINGERPRINT_VERSION
from neurolm.eeg.preprocessing import PreprocessingConfig
from neurolm.eeg.privacy import keyed_id, load_key

SHARD_SOURCE_BYTES = 32 * 2**20
"""Recordings are collected into one shard until their files reach this size."""


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


def plan_downstream(config: DataConfig, store: Path) -> list[ShardPlan]:
    """Shards of the labelled data sets below ``data.root``, split by ``data.split``. Raises UserError."""
    if config.root is None:
        raise ConfigError("data.root is not set; give the folder of your recordings: data.root=DIR")
    plans = []
    for name, data_set in config.sets.items():
        layout = layout_of(data_set)
        sources = layout.find(config.root / data_set.folder)
        plans += _plan_set(name, layout, assign(layout, sources, config.split), config, store)
    return plans


def plan_pretraining(config: DataConfig, store: Path) -> list[ShardPlan]:
    """Shards of the windows below ``data.pretraining_root``; every tenth subject of a set validates."""
    if config.pretraining_root is None:
        raise ConfigError("data.pretraining_root is not set")
    plans = []
    for name, data_set in config.pretraining_sets.items():
        layout = layout_of(data_set)
        if config.pretraining_window_s is not None:
            if not hasattr(layout, "window_s"):
                raise ConfigError(
                    f"data.pretraining_window_s: windows of layout {layout.name} have a length of their own"
                )
            layout = dataclasses.replace(layout, window_s=config.pretraining_window_s)  # type: ignore[call-arg]
        folder = config.pretraining_root / data_set.folder
        sources = layout.find(folder)
        subjects = sorted({source.subject for source in sources})
        if len(subjects) < 2:
            raise ConfigError(f"{folder}: found 1 subject; pre-training needs 2 or more (one validates)")
        splits: dict[str, Split] = {
            subject: "val" if place % 10 == 1 else "train" for place, subject in enumerate(subjects)
        }
        plans += _plan_set(name, layout, by_subject(sources, splits), config, store)
    return plans


def layout_named(name: str) -> EEGDataset:
    """The data set whose published layout has this name. Raises ConfigError."""
    if name not in LAYOUTS:
        raise ConfigError(
            f"data.sets: layout {name!r} is not known; known layouts: {', '.join(sorted(LAYOUTS))}; folder, bids"
        )
    return LAYOUTS[name]


def layout_of(data_set: DataSetConfig) -> EEGDataset:
    """The data set that a config names, or declares. Raises ConfigError."""
    if data_set.declaration is None:
        return layout_named(data_set.layout)
    return DECLARED_LAYOUTS[data_set.layout].of(data_set.declaration)


def layout_described(described: str | dict[str, Any], source: str) -> EEGDataset:
    """The data set that a model folder names or declares (`DataSetConfig.described`). Raises ConfigError."""
    values = {"layout": described} if isinstance(described, str) else described
    return layout_of(build(DataSetConfig, values, source))


def plan_digest(plans: Sequence[ShardPlan]) -> str:
    """Changes when a file, a split or a setting of preprocessing or windows changes; then a store is written again."""
    files = [
        [plan.path.name, source.recording, source.subject, source.label, path.stat().st_size, path.stat().st_mtime_ns]
        for plan in plans
        for source in plan.sources
        for path in (source.path, *filter(Path.exists, source.beside))
    ]
    layouts = sorted({repr(plan.layout) for plan in plans})
    preprocessing = [dataclasses.asdict(plan.preprocessing) for plan in plans[:1]]
    versions = {"fingerprints": FINGERPRINT_VERSION}
    return digest({"files": files, "layouts": layouts, "preprocessing": preprocessing, "versions": versions})


def _plan_set(
    name: str,
    layout: EEGDataset,
    assignment: Assignment,
    config: DataConfig,
    store: Path,
) -> list[ShardPlan]:
    key = load_key(config.privacy.key_file)
    plans = []
    for split in SPLITS:
        members = [source for source, assigned in assignment if assigned == split]
        for number, shard in enumerate(_by_size(members)):
            path = store / f"{split}-{name}-{number:05d}.parquet"
            shared = config.split.rule in layout.straddling_rules
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
