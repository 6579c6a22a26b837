"""What went into a store, what came out, and what was left out and why; totals add up to the input."""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from neurolm.config import ConfigError, as_dict
from neurolm.datasets.ledger import STORED, Ledger, total
from neurolm.datasets.plan import ShardPlan
from neurolm.eeg.fingerprint_files import DIGEST
from neurolm.eeg.privacy import key_fingerprint
from neurolm.eeg.quality import FLAGS
from neurolm.eeg.shards import Manifest, combine_digests


@dataclasses.dataclass
class RecordingAccount:
    """What became of one recording."""

    recording: str
    """Keyed id."""
    subject: str
    """Keyed id."""
    origin: str
    """Keyed id of what its windows are made from (`plan.Origins`)."""
    hours: float = 0.0
    num_windows: int = 0
    windows_by_label: dict[str, int] = dataclasses.field(default_factory=dict)
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)
    """Reason to number of windows that could not be used."""
    channels_left_out: dict[str, int] = dataclasses.field(default_factory=dict)
    """Channels of the file that were not read; others than electrodes in one sum."""
    quarantined: str | None = None
    """Why nothing of it could be used; None if it could."""
    ledger: Ledger = dataclasses.field(default_factory=Ledger)

    def __post_init__(self) -> None:
        if isinstance(self.ledger, dict):  # an account that came as JSON
            self.ledger = Ledger(**self.ledger)


@dataclasses.dataclass
class ShardAccount:
    """What went into a shard and what came out; kept beside the store's shards in ``accounts/``."""

    name: str
    split: str
    data_set: str
    sha256: str
    num_bytes: int
    parts: list[RecordingAccount]
    """In the order of their windows."""
    fingerprints_sha256: str
    digests: list[str]
    """`window_digest` of every window, in order."""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ShardAccount":
        """From the values that `dataclasses.asdict` gave."""
        return cls(**{**values, "parts": [RecordingAccount(**part) for part in values["parts"]]})

    @property
    def num_windows(self) -> int:
        """Windows in the shard."""
        return len(self.digests)

    @property
    def usable(self) -> list[RecordingAccount]:
        """The recordings that were not quarantined."""
        return [part for part in self.parts if part.quarantined is None]


def manifest_of(accounts: Sequence[ShardAccount], plans: Sequence[ShardPlan]) -> Manifest:
    """The manifest of a store whose shards are all written."""
    windows_by_split: Counter[str] = Counter()
    windows_by_label: dict[str, Counter[str]] = {}
    dropped: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    for account in accounts:
        windows_by_split[account.split] += account.num_windows
        for part in account.parts:
            windows_by_label.setdefault(account.data_set, Counter()).update(part.windows_by_label)
            dropped.update(part.dropped)
            left_out.update(part.channels_left_out)
    usable = [part for account in accounts for part in account.usable]
    return Manifest(
        data_digest=combine_digests(digest for account in accounts for digest in account.digests),
        files=[
            {"name": a.name, "split": a.split, "num_windows": a.num_windows, "sha256": a.sha256}
            | {DIGEST: a.fingerprints_sha256}
            for a in accounts
        ],
        counts={
            "num_windows": sum(account.num_windows for account in accounts),
            "num_recordings": len(usable),
            "num_subjects": len({part.subject for part in usable}),
            "num_sources": sum(len(account.parts) for account in accounts),
            "hours": round(sum(part.hours for part in usable), 4),
        },
        windows_by_split=dict(windows_by_split),
        windows_by_label={name: dict(counter) for name, counter in windows_by_label.items()},
        dropped=dict(dropped),
        channels_left_out=dict(left_out),
        quarantined={
            part.recording: part.quarantined
            for account in accounts
            for part in account.parts
            if part.quarantined is not None
        },
        data_sets=by_data_set(accounts, {plan.data_set: plan.layout.labels for plan in plans}),
        quality={"flags": dict(FLAGS), "thresholds": as_dict(plans[0].quality)},
        preprocessing=dataclasses.asdict(plans[0].preprocessing),
        config={
            "split": as_dict(plans[0].split_rule) if plans[0].split_rule else None,
            "signal_dtype": plans[0].signal_dtype,
            "data_sets": {plan.data_set: _facts(plan) for plan in plans},
        },
        privacy_key_fingerprint=key_fingerprint(plans[0].key),
        shared_subjects=sorted({plan.data_set for plan in plans if plan.may_share_subjects}),
    )


def refuse_shared_subjects(accounts: Sequence[ShardAccount], manifest: Manifest) -> None:
    """No person is in two splits of a data set, unless its published rule says so. Raises ConfigError."""
    splits: dict[tuple[str, str], set[str]] = {}
    for account in accounts:
        if account.data_set not in manifest.shared_subjects:
            for subject in {part.subject for part in account.usable}:
                splits.setdefault((account.data_set, subject), set()).add(account.split)
    if shared := sorted(who for who, found in splits.items() if len(found) > 1):
        data_set, subject = shared[0]
        raise ConfigError(
            f"data set {data_set}: {len(shared)} subjects are in more than one split (first: {subject}, in "
            f"{' and '.join(sorted(splits[shared[0]]))}); divide the recordings by subject"
        )


def by_data_set(accounts: Iterable[ShardAccount], labels: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Any]]:
    """The account of every data set, for the manifest; ``labels`` are the classes it declares, found or not."""
    members: dict[str, list[ShardAccount]] = {}
    for account in accounts:
        members.setdefault(account.data_set, []).append(account)
    return {name: _account(shards, labels.get(name, ())) for name, shards in members.items()}


def _account(shards: Sequence[ShardAccount], labels: Sequence[str]) -> dict[str, Any]:
    parts = [part for shard in shards for part in shard.parts]
    ledgers = [part.ledger for part in parts]
    usable = [part for part in parts if part.quarantined is None]
    hours = total(ledger.hours for ledger in ledgers)
    stored_by_class = total(part.windows_by_label for part in parts)
    cut_by_class = total(ledger.classes_in for ledger in ledgers)
    channels: dict[str, list[dict[str, int]]] = {}
    for ledger in ledgers:
        for channel, counts in ledger.channels.items():
            channels.setdefault(channel, []).append(counts)
    account: dict[str, Any] = {
        "recordings": {"in": len(parts), "stored": len(usable), "quarantined": len(parts) - len(usable)},
        "subjects": {"in": len({part.subject for part in parts}), "stored": len({part.subject for part in usable})},
        "hours": {
            "in": round(sum(ledger.hours_in for ledger in ledgers), 6),
            "stored": round(hours.pop(STORED, 0.0), 6),
            "left_out": {reason: round(value, 6) for reason, value in hours.items() if round(value, 6)},
        },
        "windows": {
            "in": sum(ledger.windows_in for ledger in ledgers),
            "stored": sum(shard.num_windows for shard in shards),
            "dropped": total(part.dropped for part in parts),
        },
        "classes": {
            label: {"in": cut_by_class.get(label, 0), "stored": stored_by_class.get(label, 0)}
            for label in dict.fromkeys([*labels, *cut_by_class])
        },
        "windows_by_split": total({shard.split: shard.num_windows} for shard in shards),
        "flagged_windows": total(ledger.flagged_windows for ledger in ledgers),
        "channels": {channel: total(counts) for channel, counts in channels.items()},
    }
    _assert_sums_close(account)
    return account


def _assert_sums_close(account: Mapping[str, Any]) -> None:
    recordings, hours, windows, classes = (account[name] for name in ("recordings", "hours", "windows", "classes"))
    assert recordings["in"] == recordings["stored"] + recordings["quarantined"], recordings
    assert windows["in"] == windows["stored"] + sum(windows["dropped"].values()), windows
    assert windows["stored"] == sum(numbers["stored"] for numbers in classes.values()), (windows, classes)
    assert windows["stored"] == sum(account["windows_by_split"].values()), account["windows_by_split"]
    left_out = sum(hours["left_out"].values())
    assert math.isclose(hours["in"], hours["stored"] + left_out, abs_tol=1e-4), hours


def _facts(plan: ShardPlan) -> dict[str, Any]:
    """The numbers and names of a data set that its windows follow from; no folder, pattern or free text."""
    facts = {name: value for name, value in vars(plan.layout).items() if isinstance(value, int | float)}
    layout = plan.layout
    return {"layout": layout.name, "channels": list(layout.channels), "labels": list(layout.labels)} | facts
