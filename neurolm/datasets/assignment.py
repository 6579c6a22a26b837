"""Which source goes to which split: the configured rule applied to one data set, or folds to all of them at once."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from neurolm.datasets.dataset import Assignment, EEGDataset, SourceFile, by_subject
from neurolm.datasets.folds import divide
from neurolm.datasets.splits import DEFAULT_PROPORTIONS, SPLITS, Split, SplitConfig, SplitError, split_subjects

logger = logging.getLogger(__name__)

Found = Mapping[str, tuple[EEGDataset, Sequence[SourceFile]]]
"""Name of a data set to its layout and the sources that were found."""


def assign_all(found: Found, config: SplitConfig) -> dict[str, Assignment]:
    """The split of every source of every data set.

    With folds, people of several data sets are divided once; sources whose declaration fixes their split keep it, and
    with ``within: train_and_val`` whoever would be tested without folds is in no split at all.

    Raises:
        SplitError: the data sets cannot be divided so.
    """
    if config.folds is None:
        return {name: assign(layout, sources, config) for name, (layout, sources) in found.items()}
    divided = _divisible(found, config)
    num_folds = count_folds(found, config)
    if config.fold >= num_folds:
        raise SplitError(f"data.split.fold: fold {config.fold} is not one of {num_folds}; they are counted from 0")
    groups: dict[str, dict[str, set[str]]] = {}
    for name, own in divided.items():
        if own:
            groups.setdefault(_people(found[name][0]), {})[name] = {source.subject for source in own}
    proportions = {name: layout.paper_counts or DEFAULT_PROPORTIONS for name, (layout, _) in found.items()}
    splits_of: dict[str, dict[str, Split]] = {
        people: divide(sets, num_folds, config.fold, proportions) for people, sets in groups.items()
    }
    assigned = {}
    for name, (layout, sources) in found.items():
        fixed = [] if config.within != "all" else [(one, one.split) for one in sources if one.split is not None]
        assigned[name] = fixed + by_subject(divided[name], splits_of.get(_people(layout), {}))
    return assigned


def count_folds(found: Found, config: SplitConfig) -> int:
    """How many folds there are: with loso as many as the largest group of people. Raises SplitError: too many."""
    people: dict[str, set[str]] = {}
    for name, sources in _divisible(found, config).items():
        people.setdefault(_people(found[name][0]), set()).update(source.subject for source in sources)
    most = max(map(len, people.values()), default=0)
    num_folds = config.folds if isinstance(config.folds, int) else most
    if most < 3 or num_folds > most:
        raise SplitError(
            f"data.split.folds: {config.folds} folds of {most} subjects cannot be made; at least 3 subjects and one in "
            "every fold are needed"
        )
    return num_folds


def _divisible(found: Found, config: SplitConfig) -> dict[str, list[SourceFile]]:
    """The sources that folds are made of; nobody's who is left out of one data set is used in another."""
    if config.within == "all":
        return {name: [one for one in sources if one.split is None] for name, (_, sources) in found.items()}
    without_folds = replace(config, folds=None, fold=0, within="all")
    left_out = {
        (_people(layout), source.subject)
        for layout, sources in found.values()
        for source, split in assign(layout, sources, without_folds)
        if split == "test"
    }
    return {
        name: [one for one in sources if (_people(layout), one.subject) not in left_out]
        for name, (layout, sources) in found.items()
    }


def _people(layout: EEGDataset) -> str:
    """The group of people whom ids know as the same."""
    return layout.people or layout.name


def assign(layout: EEGDataset, sources: Sequence[SourceFile], config: SplitConfig) -> Assignment:
    """The split of every source of a data set, without folds: its declaration's own, or by ``config``.

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
