"""The plan of a store: which recordings go to which shard, a function of the files and settings alone."""

import bisect
import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from neurolm.config import ConfigError, as_dict, build, digest
from neurolm.datasets import DECLARED_LAYOUTS, LAYOUTS
from neurolm.datasets.assignment import assign_all
from neurolm.datasets.data_config import DataConfig, DataSetConfig
from neurolm.datasets.dataset import Assignment, EEGDataset, SourceFile, by_subject
from neurolm.datasets.splits import SPLITS, Split, SplitConfig
from neurolm.eeg.fingerprint import FINGERPRINT_VERSION
from neurolm.eeg.manifest import SCHEMA_VERSION, code_version
from neurolm.eeg.preprocessing import PreprocessingConfig
from neurolm.eeg.privacy import keyed_id, load_key
from neurolm.eeg.quality import QualityConfig
from neurolm.eeg.window_table import SignalType

SHARD_SOURCE_BYTES = 128 * 2**20
"""The files of a shard's recordings are together no larger, but for a recording that is larger alone."""

_ID_BITS = 64


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
    signal_dtype: SignalType = "float32"
    quality: QualityConfig = dataclasses.field(default_factory=QualityConfig)
    split_rule: SplitConfig | None = None
    """How the subjects were divided, for the manifest; None: every tenth validates, as in pre-training."""
    may_share_subjects: bool = False
    """Whether the split in force may put a subject into several splits."""

    def recording_id(self, source: SourceFile) -> str:
        """The recording's keyed id."""
        return keyed_id(self.key, "recording", f"{self.layout.name}/{source.recording}")

    def subject_id(self, source: SourceFile) -> str:
        """The subject's keyed id."""
        return keyed_id(self.key, "subject", f"{self.layout.people or self.layout.name}/{source.subject}")

    @functools.cached_property
    def settings_digest(self) -> str:
        """Changes with whatever decides how a recording becomes windows."""
        settings = [
            self.data_set,
            repr(self.layout),
            dataclasses.asdict(self.preprocessing),
            self.signal_dtype,
            as_dict(self.quality),
        ]
        versions = {"schema": SCHEMA_VERSION, "fingerprints": FINGERPRINT_VERSION, "code": code_version()}
        return digest({"settings": settings, "versions": versions})


def plan_downstream(config: DataConfig, store: Path) -> list[ShardPlan]:
    """Shards of the labelled data sets below ``data.root``, split by ``data.split``. Raises UserError."""
    found = find_downstream(config)
    assigned = assign_all(found, config.split)
    return [
        plan
        for name, (layout, _) in found.items()
        for plan in _plan_set(name, layout, assigned[name], config, store, config.split)
    ]


def find_downstream(config: DataConfig) -> dict[str, tuple[EEGDataset, list[SourceFile]]]:
    """Layout and sources of every data set below ``data.root``. Raises UserError."""
    if config.root is None:
        raise ConfigError("data.root is not set; give the folder of your recordings: data.root=DIR")
    layouts = {name: layout_of(data_set) for name, data_set in config.sets.items()}
    return {name: (layout, layout.find(config.root / config.sets[name].folder)) for name, layout in layouts.items()}


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
        plans += _plan_set(name, layout, by_subject(sources, splits), config, store, rule=None)
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
    origins = Origins()
    return digest(
        {"shards": [[plan.path.name, [origins.of(plan, source) for source in plan.sources]] for plan in plans]}
    )


class Origins:
    """Says what a recording's windows are made from: its files, their sizes and times, and the settings.

    A recording's files are its own, those beside it that begin with its name (sidecars, and the signals of formats that
    keep them apart) and those that its data set knows of. Folders are listed once.
    """

    def __init__(self) -> None:
        self._names: dict[Path, list[str]] = {}

    def of(self, plan: ShardPlan, source: SourceFile) -> str:
        """A keyed id that is new when a file or a setting has changed; it tells nothing about them."""
        described = {name: str(value) for name, value in vars(source).items() if name not in ("path", "beside")}
        found = self._files(source.path) + [(path, path.stat()) for path in source.beside if path.exists()]
        files = [[path.name, status.st_size, status.st_mtime_ns] for path, status in found]
        return keyed_id(
            plan.key, "origin", digest({"settings": plan.settings_digest, "source": described, "files": files})
        )

    def size(self, source: SourceFile) -> int:
        """Bytes of a recording's files; 0 where there is none any more."""
        return sum(status.st_size for _, status in self._files(source.path))

    def _files(self, path: Path) -> list[tuple[Path, os.stat_result]]:
        folder = path.parent
        if folder not in self._names:
            self._names[folder] = sorted(os.listdir(folder))
        names = self._names[folder]
        found = []
        for name in names[bisect.bisect_left(names, path.stem) :]:
            if not name.startswith(path.stem):
                break
            if not name[len(path.stem) : len(path.stem) + 1].isalnum():
                with contextlib.suppress(OSError):  # vanished, or a link to nothing: reading will say so
                    found.append((folder / name, (folder / name).stat()))
        return found


def _plan_set(
    name: str,
    layout: EEGDataset,
    assignment: Assignment,
    config: DataConfig,
    store: Path,
    rule: SplitConfig | None,
) -> list[ShardPlan]:
    plan = ShardPlan(
        store, "", name, layout, (), config.preprocessing, load_key(config.privacy.key_file), config.signal_dtype,
        config.quality, rule, rule is not None and rule.rule in layout.straddling_rules,
    )  # fmt: skip
    origins = Origins()
    plans = []
    for split in SPLITS:
        members = [
            _Member(source, f"{int(plan.recording_id(source), 16):0{_ID_BITS}b}", origins.size(source))
            for source, assigned in assignment
            if assigned == split
        ]
        for bits, shard in _by_leading_bits(members):
            path = store / f"{split}-{name}-{bits or 'all'}.parquet"
            chosen = tuple(member.source for member in shard)
            plans.append(dataclasses.replace(plan, path=path, split=split, sources=chosen))
    return plans


@dataclasses.dataclass(frozen=True)
class _Member:
    source: SourceFile
    bits: str
    """Of the keyed id."""
    num_bytes: int


def _by_leading_bits(members: Sequence[_Member], bits: str = "") -> Iterator[tuple[str, Sequence[_Member]]]:
    """Recordings by the leading bits of their ids, as many bits as it takes for no shard to be too large.

    So the plan follows from the recordings alone, and one more of them changes one shard, or halves it.
    """
    if not members:
        return
    if len(members) == 1 or len(bits) == _ID_BITS or sum(member.num_bytes for member in members) <= SHARD_SOURCE_BYTES:
        yield bits, members
        return
    for bit in "01":
        yield from _by_leading_bits([member for member in members if member.bits[len(bits)] == bit], bits + bit)
