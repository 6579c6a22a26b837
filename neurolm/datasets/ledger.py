"""The ledger of a recording: what of its time, windows and classes is stored, and where the rest went, with reasons."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurolm.eeg.channels import CHANNELS
from neurolm.eeg.quality import FLAGS

STORED = "stored"
QUARANTINED = "quarantined"
NOT_USED = "left out by the data set's rule"
"""Time of a stored recording that lies in no window which was cut."""
UNLABELLED = "unlabelled"
"""What windows without a label are counted under."""


@dataclass
class Entry:
    """One recording on its way into a store."""

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
    """What an account's other numbers do not say."""

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
        self.classes_in = total([self.classes_in, entry.classes])
        self.hours_in += entry.duration_s / 3600
        self.hours = total([self.hours, entry.hours(is_quarantined)])
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
        self.flagged_windows = total([self.flagged_windows, windows])
        for channel, counts in by_channel.items():
            self.channels[channel] = total([self.channels.get(channel, {}), counts])


def label_name(label: str | None) -> str:
    """What a label is counted under."""
    return UNLABELLED if label is None else label


def total(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Numbers added up by name."""
    added: dict[str, Any] = {}
    for part in parts:
        for name, number in part.items():
            added[name] = added.get(name, 0) + number
    return added


def _covered_s(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of spans."""
    covered, reached = 0.0, -math.inf
    for begin, end in sorted(spans):
        covered += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return covered
