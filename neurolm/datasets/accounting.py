"""What went into a store and what came out: recordings, subjects, hours, windows, classes, each loss with its reason.

Every recording is an `Entry` while it is read and cut; the entries of a shard make its `Ledger`, the ledgers of a data
set its account in the manifest (`by_data_set`), and nothing is written whose sums do not close.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neurolm.eeg.channels import CHANNELS
from neurolm.eeg.quality import FLAGS

if TYPE_CHECKING:
    from neurolm.datasets.ingest import ShardAccount

STORED = "stored"
QUARANTINED = "quarantined"
NOT_USED = "left out by the data set's rule"
"""Time of a stored recording that lies in no window which was cut."""
UNLABELLED = "unlabelled"
"""What windows without a label are counted under."""


@dataclass
class Entry:
    """One recording on its way into a shard."""

    subject: str
    duration_s: float = 0.0
    """0 until it was read."""
    not_cut: Counter[str] = field(default_factory=Counter)
    """Why the data set's rule could not cut windows it should have."""
    classes: Counter[str] = field(default_factory=Counter)
    """Labels of the windows that were cut."""
    spans: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """`STORED`, or the reason of dropping, to where its windows begin and end, in seconds."""
    channels: Sequence[int] = ()
    """Rows of the electrode vocabulary of the stored windows' channels."""
    flags: list[NDArray[np.uint8]] = field(default_factory=list)
    """Of every stored window, [channels]."""

    def cut(self, label: str | None, start_s: float, duration_s: float, reason: str | None) -> None:
        """Count a window; ``reason`` None means that it is stored."""
        self.classes[label_name(label)] += 1
        self.spans.setdefault(reason or STORED, []).append((start_s, min(start_s + duration_s, self.duration_s)))

    @property
    def dropped(self) -> Counter[str]:
        """Reason to number of windows that are not stored."""
        cut = Counter({reason: len(spans) for reason, spans in self.spans.items() if reason != STORED})
        return self.not_cut + cut

    def hours(self, is_quarantined: bool) -> dict[str, float]:
        """Where the recording's time went; overlapping windows count once, and stored before dropped."""
        if is_quarantined:
            return {QUARANTINED: self.duration_s / 3600}
        fates: dict[str, float] = {}
        spans: list[tuple[float, float]] = []
        before = 0.0
        for fate in sorted(self.spans, key=lambda fate: fate != STORED):
            spans += self.spans[fate]
            after = _covered_s(spans)
            fates[fate] = (after - before) / 3600
            before = after
        return fates | {NOT_USED: (self.duration_s - before) / 3600}


@dataclass
class Ledger:
    """What a shard's other numbers do not say."""

    subjects_in: list[str] = field(default_factory=list)
    """Keyed ids, also of those who have no usable recording."""
    windows_in: int = 0
    """Windows that should have come out of the recordings that could be read."""
    classes_in: dict[str, int] = field(default_factory=dict)
    """Label to number of windows that were cut, stored or not."""
    hours_in: float = 0.0
    """Hours of all recordings that could be read."""
    hours: dict[str, float] = field(default_factory=dict)
    """Where they went: `STORED`, a reason why windows were dropped, `NOT_USED` or `QUARANTINED`."""
    flagged_windows: dict[str, int] = field(default_factory=dict)
    """Flag to number of stored windows with such a channel; ``any`` is those with any flag."""
    channels: dict[str, dict[str, int]] = field(default_factory=dict)
    """Channel to ``windows``, how many were judged, and flag to how many of them have it."""

    def add(self, entry: Entry, *, is_quarantined: bool) -> None:
        """Take over a recording that was stored or quarantined."""
        self.subjects_in.append(entry.subject)
        self.windows_in += sum(entry.not_cut.values()) + sum(entry.classes.values())
        self.classes_in = _total([self.classes_in, entry.classes])
        self.hours_in += entry.duration_s / 3600
        self.hours = _total([self.hours, entry.hours(is_quarantined)])
        if entry.flags:
            self._add_flags(np.stack(entry.flags), [CHANNELS[index] for index in entry.channels])

    def _add_flags(self, flags: NDArray[np.uint8], channels: Sequence[str]) -> None:
        """Count the flags of a recording's stored windows, [windows channels]."""
        windows = Counter(any=int((flags > 0).any(axis=1).sum()))
        by_channel = {name: Counter(windows=len(flags)) for name in channels}
        for name, bit in FLAGS.items():
            is_set = (flags & bit) > 0
            windows[name] = int(is_set.any(axis=1).sum())
            for channel, number in zip(channels, is_set.sum(axis=0), strict=True):
                by_channel[channel][name] = int(number)
        self.flagged_windows = _total([self.flagged_windows, windows])
        for channel, counts in by_channel.items():
            self.channels[channel] = _total([self.channels.get(channel, {}), counts])


def label_name(label: str | None) -> str:
    """What a label is counted under."""
    return UNLABELLED if label is None else label


def by_data_set(accounts: Iterable["ShardAccount"], labels: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Any]]:
    """The account of every data set, for the manifest; ``labels`` are the classes it declares, found or not."""
    members: dict[str, list[ShardAccount]] = {}
    for account in accounts:
        members.setdefault(account.data_set, []).append(account)
    return {name: _account(shards, labels.get(name, ())) for name, shards in members.items()}


def _account(shards: Sequence["ShardAccount"], labels: Sequence[str]) -> dict[str, Any]:
    ledgers = [shard.ledger for shard in shards]
    hours = _total(ledger.hours for ledger in ledgers)
    stored_by_class = _total(shard.windows_by_label for shard in shards)
    cut_by_class = _total(ledger.classes_in for ledger in ledgers)
    channels: dict[str, list[dict[str, int]]] = {}
    for ledger in ledgers:
        for channel, counts in ledger.channels.items():
            channels.setdefault(channel, []).append(counts)
    account: dict[str, Any] = {
        "recordings": {
            "in": sum(shard.num_sources for shard in shards),
            "stored": sum(len(set(shard.recordings)) for shard in shards),
            "quarantined": sum(len(shard.quarantined) for shard in shards),
        },
        "subjects": {
            "in": len({subject for ledger in ledgers for subject in ledger.subjects_in}),
            "stored": len({subject for shard in shards for subject in shard.subjects}),
        },
        "hours": {
            "in": round(sum(ledger.hours_in for ledger in ledgers), 6),
            "stored": round(hours.pop(STORED, 0.0), 6),
            "left_out": {reason: round(value, 6) for reason, value in hours.items() if round(value, 6)},
        },
        "windows": {
            "in": sum(ledger.windows_in for ledger in ledgers),
            "stored": sum(shard.num_windows for shard in shards),
            "dropped": _total(shard.dropped for shard in shards),
        },
        "classes": {
            label: {"in": cut_by_class.get(label, 0), "stored": stored_by_class.get(label, 0)}
            for label in dict.fromkeys([*labels, *cut_by_class])
        },
        "windows_by_split": _total({shard.split: shard.num_windows} for shard in shards),
        "flagged_windows": _total(ledger.flagged_windows for ledger in ledgers),
        "channels": {channel: _total(counts) for channel, counts in channels.items()},
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


def _total(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for part in parts:
        for name, number in part.items():
            total[name] = total.get(name, 0) + number
    return total


def _covered_s(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of spans."""
    covered, reached = 0.0, -math.inf
    for begin, end in sorted(spans):
        covered += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return covered
