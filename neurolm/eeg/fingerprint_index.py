"""Looking fingerprints up: which recordings share a signal with this one, and where."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neurolm.eeg.fingerprint import Fingerprint

MIN_VOTES = 4
"""Different half seconds in which landmarks agree on one offset, for two recordings to share a signal."""

_TOLERANCE_MS = 60
"""Offsets that differ by no more than this agree."""
_VOTE_MS = 500
_MAX_COMMON = 50
"""A hash that is more often in the index than this says nothing."""


@dataclass(frozen=True)
class Match:
    """A recording of the index that shares a signal with the one looked up."""

    number: int
    """Its place in the index."""
    offset_s: float
    """Time in the recording looked up minus time in the one of the index."""
    votes: int
    """Half seconds in which both agree."""


class FingerprintIndex:
    """The landmarks of some recordings, sorted by hash; a look-up is one binary search for every landmark."""

    def __init__(self, fingerprints: Sequence[Fingerprint]) -> None:
        hashes = np.concatenate([np.empty(0, np.uint32), *(one.hashes for one in fingerprints)])
        owners = np.repeat(np.arange(len(fingerprints)), [len(one) for one in fingerprints])
        times = np.concatenate([np.empty(0, np.uint32), *(one.times_ms for one in fingerprints)])
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._owners, self._times = hashes[order], owners[order], times[order].astype(np.int64)

    def find(self, fingerprint: Fingerprint) -> list[Match]:
        """The recordings that share a signal with this one."""
        order = np.argsort(fingerprint.hashes)  # in the index's order it is twice as fast
        hashes, times_ms = fingerprint.hashes[order], fingerprint.times_ms[order].astype(np.int64)
        first = np.searchsorted(self._hashes, hashes, side="left")
        counts = np.searchsorted(self._hashes, hashes, side="right") - first
        counts[counts > _MAX_COMMON] = 0
        ends = np.cumsum(counts)
        places = np.repeat(first - (ends - counts), counts) + np.arange(ends[-1] if len(ends) else 0)
        owners, times = self._owners[places], self._times[places]
        offsets = np.repeat(times_ms, counts) - times
        order = np.lexsort((offsets, owners))
        owners, offsets, times = owners[order], offsets[order], times[order]
        # One number that orders by recording, then by offset: a window of offsets is then a range of places.
        keys = (owners.astype(np.int64) << 40) + offsets
        stops = np.searchsorted(keys, keys + _TOLERANCE_MS, side="right")
        votes = stops - np.arange(len(keys))
        found = []
        for owner in np.unique(owners[votes >= MIN_VOTES]):
            mine = np.flatnonzero(owners == owner)
            start = mine[np.argmax(votes[mine])]
            window = slice(start, stops[start])
            moments = len(np.unique(times[window] // _VOTE_MS))
            if moments >= MIN_VOTES:
                found.append(Match(int(owner), float(np.median(offsets[window])) / 1000, moments))
        return found
