"""What went into a store, what came out, and what was left out and why; totals add up to the input."""

import dataclasses
from collections import Counter
from collections.abc import Sequence

from neurolm.config import ConfigError
from neurolm.datasets.plan import ShardPlan
from neurolm.eeg.fingerprint_files import DIGEST
from neurolm.eeg.privacy import key_fingerprint
from neurolm.eeg.shards import Manifest, combine_digests


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
    channels_left_out: dict[str, int] = dataclasses.field(default_factory=dict)
    quarantined: dict[str, str] = dataclasses.field(default_factory=dict)
    digests: list[str] = dataclasses.field(default_factory=list)
    fingerprints_sha256: str | None = None


def manifest_of(accounts: Sequence[ShardAccount], plans: Sequence[ShardPlan]) -> Manifest:
    """The manifest of a store whose shards are all written."""
    windows_by_split: Counter[str] = Counter()
    windows_by_label: dict[str, Counter[str]] = {}
    dropped: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    for account in accounts:
        left_out.update(account.channels_left_out)
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
        channels_left_out=dict(left_out),
        quarantined={key: reason for account in accounts for key, reason in account.quarantined.items()},
        preprocessing=dataclasses.asdict(plans[0].preprocessing),
        privacy_key_fingerprint=key_fingerprint(plans[0].key),
        shared_subjects=sorted({plan.data_set for plan in plans if plan.may_share_subjects}),
    )


def refuse_shared_subjects(accounts: Sequence[ShardAccount], manifest: Manifest) -> None:
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
