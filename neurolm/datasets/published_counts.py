"""What is published about a data set's size against what a store got: equal, different, or not comparable, and told."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from neurolm.datasets.dataset import EEGDataset, SourceFile
from neurolm.datasets.splits import SPLITS

logger = logging.getLogger(__name__)


def compare_with_published(
    planned: Sequence[tuple[str, EEGDataset, SourceFile, str]], written: Iterable[tuple[str, str, int]]
) -> dict[str, dict[str, Any]]:
    """For every data set with published numbers: ``published``, ``found`` and a list of ``differences`` in words.

    Windows are compared where all published recordings are present (or their number is not known), and windows by split
    where the split is that of the released code. Differences in windows are also logged as warnings.

    Args:
        planned: data set, layout, source and split of everything that was to be written.
        written: data set, split and number of windows of everything that was.
    """
    windows: dict[str, Counter[str]] = {}
    for name, split, number in written:
        windows.setdefault(name, Counter())[split] += number
    report = {}
    for name, layout in {name: layout for name, layout, _, _ in planned}.items():
        assignment = [(source, split) for other, _, source, split in planned if other == name]
        if compared := _compare(layout, assignment, windows.get(name, Counter())):
            report[name] = compared
            level = logging.INFO if _is_incomplete(layout, compared["found"]["recordings"]) else logging.WARNING
            for difference in compared["differences"]:
                logger.log(level, "data set %s: %s", name, difference)
    return report


def _compare(
    layout: EEGDataset, assignment: Sequence[tuple[SourceFile, str]], windows: Counter[str]
) -> dict[str, Any] | None:
    published = layout.published
    if published.recordings is None and published.windows is None:
        return None
    # A file in parts for several splits is one recording; a file of several recordings is not.
    num_recordings = len({(s.path, None if s.part in SPLITS else s.part) for s, _ in assignment})
    num_windows = windows.total()
    differences = []
    if _is_incomplete(layout, num_recordings):
        differences.append(f"{num_recordings} recordings are here, {published.recordings} are published")
    elif published.windows is not None:
        if num_windows != published.windows:
            differences.append(f"{num_windows} windows came out, {published.windows} are published")
        if published.windows_by_split is not None and _is_released_split(layout, assignment):
            differences += [
                f"{windows[split]} {split} windows came out, {number} are published"
                for split, number in zip(SPLITS, published.windows_by_split, strict=True)
                if windows[split] != number
            ]
    known = {"recordings": published.recordings, "windows": published.windows}
    return {
        "published": {fact: number for fact, number in known.items() if number is not None},
        "found": {"recordings": num_recordings, "windows": num_windows},
        "differences": differences,
    }


def _is_incomplete(layout: EEGDataset, num_recordings: int) -> bool:
    return layout.published.recordings not in (None, num_recordings)


def _is_released_split(layout: EEGDataset, assignment: Sequence[tuple[SourceFile, str]]) -> bool:
    if any(source.part in SPLITS for source, _ in assignment):
        return True  # only a published rule divides a file
    sources = sorted((source for source, _ in assignment), key=lambda source: source.path)
    return set(layout.released_split(sources)) == set(assignment)
