from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurolm.config import ConfigError, build
from neurolm.datasets.splits import SplitConfig, SplitError, split_subjects

WORKLOAD = (26, 5, 5)


def subjects(count: int) -> list[str]:
    return [f"Subject{number:02d}" for number in range(count)]


def sizes(count: int, paper_counts: tuple[int, int, int] | None = WORKLOAD) -> tuple[int, int, int]:
    found = Counter(split_subjects(subjects(count), SplitConfig(), paper_counts).values())
    return found["train"], found["val"], found["test"]


def test_papers_counts_with_enough_subjects() -> None:
    assert sizes(36) == (26, 5, 5)
    assert sizes(32) == (26, 5, 1)
    assert sizes(40) == (26, 5, 9)
    splits = split_subjects(reversed(subjects(36)), SplitConfig(), WORKLOAD)
    assert [splits[f"Subject{number:02d}"] for number in (0, 25, 26, 30, 31, 35)] == [
        "train", "train", "val", "val", "test", "test",
    ]  # fmt: skip


def test_papers_proportions_with_fewer() -> None:
    assert sizes(31) == (21, 5, 5)
    assert sizes(12) == (8, 2, 2)
    assert sizes(3) == (1, 1, 1)
    assert sizes(20, None) == (14, 3, 3)


def test_explicit_counts() -> None:
    splits = split_subjects(subjects(31), SplitConfig(counts=(21, 5, 5)), WORKLOAD)
    assert Counter(splits.values()) == {"train": 21, "val": 5, "test": 5}
    assert split_subjects(["a"], SplitConfig(counts=(0, 0, 1)), None) == {"a": "test"}


def test_counts_must_add_up() -> None:
    with pytest.raises(SplitError, match=r"26 \+ 5 \+ 5 = 36 subjects, but 31 are there"):
        split_subjects(subjects(31), SplitConfig(counts=(26, 5, 5)), WORKLOAD)


def test_two_subjects_are_too_few() -> None:
    with pytest.raises(SplitError, match="at least 3"):
        split_subjects(subjects(2), SplitConfig(), WORKLOAD)


def test_counts_come_from_yaml() -> None:
    assert build(SplitConfig, {"counts": [21, 5, 5]}, source="x").counts == (21, 5, 5)
    for wrong in ("automatic", [21, 5], [21, 5, -1]):
        with pytest.raises(ConfigError):
            build(SplitConfig, {"counts": wrong}, source="x")


@given(st.integers(3, 400), st.one_of(st.none(), st.tuples(*[st.integers(1, 150)] * 3)))
def test_every_subject_has_one_split_and_no_split_is_empty(count: int, paper: tuple[int, int, int] | None) -> None:
    splits = split_subjects(subjects(count), SplitConfig(), paper)
    assert sorted(splits) == sorted(subjects(count))
    assert set(splits.values()) == {"train", "val", "test"}


def test_hash_split_stays_when_subjects_are_added() -> None:
    config = SplitConfig(rule="subject")
    few, many = (split_subjects(subjects(count), config, WORKLOAD) for count in (40, 400))
    assert all(many[subject] == split for subject, split in few.items())
    shares = Counter(many.values())
    assert abs(shares["train"] - 280) < 30
    assert abs(shares["val"] - 60) < 25
    assert split_subjects(reversed(subjects(40)), config, None) == few  # neither order nor the paper's numbers matter


def test_settings_that_contradict_each_other() -> None:
    for values, words in [
        ({"folds": 5, "fold": 5}, "fold 5 is not one of 5"),
        ({"fold": 1}, "folds is not set"),
        ({"folds": 5, "rule": "paper"}, "rule paper does not divide"),
        ({"folds": 5, "counts": [1, 1, 1]}, "counts say which subjects go where"),
        ({"rule": "released", "counts": [1, 1, 1]}, "counts say which subjects go where"),
        ({"rule": "random"}, "paper"),
        ({"folds": 1}, "2"),
        ({"within": "train_and_val"}, "folds is not set"),
    ]:
        with pytest.raises(ConfigError, match=words):
            build(SplitConfig, values, source="x")
