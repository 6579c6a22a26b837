"""Where a recording is not continuous: breaks between two time points, and spans without a usable signal (NaN).

Both come from gaps that a format declares (EDF+D), from annotations that begin with "bad", "edge", "boundary" or
"New Segment", as MNE, EEGLAB and BrainVision write them, and from values that are not finite. Filters run within the
pieces between them, and no window may touch one.
"""

import itertools
import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from neurolm.eeg.scratch import release

BAD = re.compile(r"bad(?!.*boundary)", re.IGNORECASE)
"""Annotations whose whole span is unusable; MNE leaves such spans out of analyses too."""
BREAK = re.compile(r"bad|edge\b|boundary\b|new segment\b", re.IGNORECASE)
"""Annotations at whose onset two pieces of signal were joined."""

MIN_PIECE_S = 1.0
"""Shorter pieces are given up: no window fits into them."""


def continuous_pieces(
    signal: NDArray[np.floating], breaks_s: Iterable[float], sampling_rate_hz: float
) -> list[tuple[int, int]]:
    """First and one-past-last time point of every piece that is finite in all channels and holds no break."""
    usable = np.ones(signal.shape[1], dtype=bool)
    for row in signal:
        usable &= np.isfinite(row)
        release(signal)
    edges = np.flatnonzero(np.diff(usable.astype(np.int8))) + 1
    cuts = {0, signal.shape[1], *edges.tolist(), *(round(break_s * sampling_rate_hz) for break_s in breaks_s)}
    ordered = sorted(cut for cut in cuts if 0 <= cut <= signal.shape[1])
    return [(begin, end) for begin, end in itertools.pairwise(ordered) if usable[begin]]
