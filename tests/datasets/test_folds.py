from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurolm.datasets.folds import deal, divide
from neurolm.datasets.splits import SplitError

SHARES = (26, 5, 5)


def people(count: int) -> list[str]:
    return [f"S{number:03d}" for number in range(count)]


def test_a_small_set_among_many_people_is_spread_over_the_folds() -> None:
    """Three people of fourteen have eyes open and closed: with five folds each is tested in one of their own."""
    sets = {"fists": people(14), "eyes": people(14)[11:]}
    folds = deal(sets, 5)
    assert len({folds[person] for person in sets["eyes"]}) == 3
    assert sorted(Counter(folds.values()).values()) == [2, 3, 3, 3, 3]


def test_parts_of_a_fold_by_hand() -> None:
    splits = divide({"workload": people(31)}, 5, 0, {"workload": SHARES})
    assert Counter(splits.values()) == {"test": 7, "val": 4, "train": 20}  # 24 rest, of which 5 in 31 rounded up
    dealt = deal({"workload": people(31)}, 5)
    assert {dealt[person] for person, split in splits.items() if split == "val"} == {1}, "those who are tested next"


@given(st.integers(3, 60), st.integers(2, 10))
def test_of_one_set_everybody_is_tested_once_and_folds_are_even(count: int, folds: int) -> None:
    if folds > count or (folds == 2 and count < 4):
        return
    tested: Counter[str] = Counter()
    for fold in range(folds):
        splits = divide({"one": people(count)}, folds, fold, {"one": SHARES})
        assert sorted(splits) == people(count)
        assert set(splits.values()) == {"train", "val", "test"}
        members = [person for person, split in splits.items() if split == "test"]
        assert len(members) in (count // folds, -(-count // folds))
        tested.update(members)
    assert sorted(tested) == people(count) and set(tested.values()) == {1}


@given(
    st.dictionaries(st.sampled_from(["eyes", "fists", "sleep", "workload"]), st.sets(st.integers(0, 30), min_size=6)),
    st.integers(3, 6),
)
def test_of_several_sets_nobody_is_in_two_parts_and_no_set_lacks_one(sets: dict[str, set[int]], folds: int) -> None:
    named = {name: {f"S{number:03d}" for number in members} for name, members in sets.items()}
    everybody = set().union(*named.values())
    tested: Counter[str] = Counter()
    for fold in range(folds):
        splits = divide(named, folds, fold, dict.fromkeys(named, (70, 15, 15)))
        assert set(splits) == everybody
        tested.update(person for person, split in splits.items() if split == "test")
        for members in named.values():
            assert {"train", "val"} <= {splits[person] for person in members}
    assert set(tested) == everybody and set(tested.values()) <= {1}
    if named:
        smallest = min(named, key=lambda name: (len(named[name]), name))
        of_fold = Counter(deal(named, folds)[person] for person in named[smallest])
        assert max(of_fold.values()) - min(of_fold[fold] for fold in range(folds)) <= 1


def test_nobody_left_to_train_is_refused() -> None:
    with pytest.raises(SplitError, match="in fold 0 of 2, data set pair has 1 of its 2 subjects left"):
        divide({"pair": people(2)}, 2, 0, {"pair": SHARES})
