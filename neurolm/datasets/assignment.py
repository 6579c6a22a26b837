"""Which source goes to which split: the configured rule applied to one data set."""

import logging
from collections import Counter
from collections.abc import Sequence

from neurolm.datasets.dataset import Assignment, EEGDataset, SourceFile, by_subject
from neurolm.datasets.splits import SPLITS, SplitConfig, SplitError, split_subjects

logger = logging.getLogger(__name__)


def assign(layout: EEGDataset, sources: Sequence[SourceFile], config: SplitConfig) -> Assignment:
    """The split of every source: its declaration's own, or by ``config``.

    A published rule may divide files into parts or leave some out.

    Subjects that a published rule puts into several splits are counted in a warning; other rules never do that.

    Raises:
        SplitError: the data set has no such rule, or a published or hashed split is empty with the files present.
    """
    declared = [(source, source.split) for source in sources if source.split is not None]
    if declared:
        rest = [source for source in sources if source.split is None]
        return declared + (assign(layout, rest, config) if rest else [])
    if config.rule == "paper":
        assignment = layout.paper_split(sources)
    elif config.rule == "released":
        assignment = layout.released_split(sources)
    elif config == SplitConfig() and {source.published_split for source in sources} >= {"train", "test"}:
        assignment = layout.paper_split(sources)
    else:
        assignment = by_subject(
            sources, split_subjects({source.subject for source in sources}, config, layout.paper_counts)
        )
    if config.rule != "auto":
        _refuse_empty(layout, assignment, config)
    if straddling := straddling_subjects(assignment):
        logger.warning(
            "data set %s: rule %s puts %d subjects into more than one split", layout.name, config.rule, straddling
        )
    return assignment


def straddling_subjects(assignment: Assignment) -> int:
    """How many subjects are in more than one split."""
    splits_of = Counter(subject for subject, _ in {(source.subject, split) for source, split in assignment})
    return sum(number > 1 for number in splits_of.values())


def _refuse_empty(layout: EEGDataset, assignment: Assignment, config: SplitConfig) -> None:
    used = {split for _, split in assignment}
    empty = [split for split in SPLITS if split not in used]
    if empty:
        number = len({source.path for source, _ in assignment})
        raise SplitError(
            f"data set {layout.name}: rule {config.rule} leaves nothing for {', '.join(empty)} of the {number} files "
            "present; add recordings or set data.split.rule to auto"
        )
