"""Folds over people, for cross-validation: everybody is tested once, nobody is in two parts, sets are spread evenly.

People of several data sets (eyes and imagery of EEGMMIDB, the TUH sets) are divided once for all of them: who is tested
in the one is neither trained on nor chosen by in the other.
"""

from collections import Counter
from collections.abc import Collection, Mapping

from neurolm.datasets.splits import Split, SplitError, in_hash_order

Sets = Mapping[str, Collection[str]]
"""Data set to its people."""


def deal(sets: Sets, num_folds: int) -> dict[str, int]:
    """The fold in which everybody is tested.

    People of the smallest data set are dealt first, in hash order, each to the fold that has fewest of that data set;
    so a data set's folds differ by one person at most, and one of fewer people than folds has one in each of its own.
    """
    sets = {name: set(people) for name, people in sets.items()}
    by_size = sorted(sets, key=lambda name: (len(sets[name]), name))
    fold_of: dict[str, int] = {}
    found: dict[str, Counter[int]] = {name: Counter() for name in by_size}
    total: Counter[int] = Counter()
    for name in by_size:
        for person in in_hash_order(sets[name]):
            if person in fold_of:
                continue
            own = [one for one in by_size if person in sets[one]]
            chosen = min(range(num_folds), key=lambda fold: (*(found[one][fold] for one in own), total[fold], fold))
            fold_of[person] = chosen
            total[chosen] += 1
            for one in own:
                found[one][chosen] += 1
    return fold_of


def divide(sets: Sets, num_folds: int, fold: int, proportions: Mapping[str, tuple[int, int, int]]) -> dict[str, Split]:
    """Who trains, validates and is tested in a fold, counted from 0.

    Of those who are not tested, a share of every data set validates (rounded up, by its train and val
    ``proportions``), those first who are tested in the next fold.

    Raises:
        SplitError: a data set has nobody left to train on or to validate.
    """
    sets = {name: set(people) for name, people in sets.items()}
    fold_of = deal(sets, num_folds)
    splits: dict[str, Split] = {person: "test" if own == fold else "train" for person, own in fold_of.items()}
    rest = [person for person in in_hash_order(fold_of) if splits[person] == "train"]
    rest.sort(key=lambda person: (fold_of[person] - fold) % num_folds)
    of_set = {name: [person for person in rest if person in sets[name]] for name in sets}
    taken: Counter[str] = Counter()
    for name in sorted(sets, key=lambda name: (len(of_set[name]), name)):
        train, val, _ = proportions[name]
        wanted = min(-(-len(of_set[name]) * val // (train + val)), len(of_set[name]) - 1)
        for person in of_set[name]:
            own = [one for one in sets if person in sets[one]]
            is_spare = all(taken[one] + 1 < len(of_set[one]) for one in own)
            if taken[name] < wanted and is_spare and splits[person] == "train":
                splits[person] = "val"
                taken.update(own)
        if not taken[name]:
            raise SplitError(
                f"data.split.folds: in fold {fold} of {num_folds}, data set {name} has {len(of_set[name])} of its "
                f"{len(sets[name])} subjects left; one has to train and one to validate. Give it more subjects "
                "or take more folds"
            )
    return splits
