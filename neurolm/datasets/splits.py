"""Train, val and test by subject: no person is in two splits, and the same people always give the same splits.

Published rules that look at recordings or trials instead are declared by the data sets; `assignment.py` chooses.
"""

import hashlib
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, model_validator

from neurolm.config import UserError, config

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
DEFAULT_PROPORTIONS = (70, 15, 15)
"""For data sets that the paper does not split, and for the splits by hash."""

Count = Annotated[int, Field(ge=0)]


class SplitError(UserError):
    """Subjects or recordings that cannot be divided as asked."""


@config
class SplitConfig:
    """How every data set is divided into train, val and test."""

    rule: Literal["auto", "paper", "released", "subject"] = "auto"
    """auto keeps the publisher's test subjects where there are some (TUAB, TUEV), else takes sorted subjects by
    ``counts``; paper is the paper's split, released that of the released code with its accidents (not always by
    subject), subject a hash of each subject's name (70/15/15), which stays as it is when others are added."""
    counts: Literal["auto"] | tuple[Count, Count, Count] = "auto"
    """Numbers of train, val and test subjects in sorted order; auto takes the paper's numbers (the rest is test) where
    there are enough subjects, else the same proportions of those present."""
    folds: Annotated[int, Field(ge=2)] | Literal["loso"] | None = None
    """Cross-validation over subjects: the number of folds, or loso for as many as there are subjects; null for none.
    Every subject is tested in exactly one fold; a data set of fewer subjects than folds has none to test in some."""
    fold: Annotated[int, Field(ge=0)] = 0
    """Which fold is the test split, counted from 0."""
    within: Literal["all", "train_and_val"] = "all"
    """Who is divided into folds: all, or those who train and validate without folds. Then those who would be tested are
    left out of the store, so that whatever is chosen by such folds is chosen without them."""

    @model_validator(mode="after")
    def _agree(self) -> "SplitConfig":
        divides_all = self.folds is not None and self.within == "all"
        if self.counts != "auto" and (self.rule != "auto" or divides_all):
            raise ValueError(
                "counts say which subjects go where: leave rule at auto and folds at null, or counts at auto"
            )
        if self.within != "all" and self.folds is None:
            raise ValueError(f"within is {self.within}, but folds is not set")
        if self.folds is not None and self.rule in ("paper", "released"):
            raise ValueError(f"folds are over subjects, which rule {self.rule} does not divide; unset one of the two")
        if isinstance(self.folds, int) and self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} is not one of {self.folds}; they are counted from 0")
        if self.folds is None and self.fold:
            raise ValueError(f"fold is {self.fold}, but folds is not set")
        return self


def split_subjects(
    subjects: Iterable[str], config: SplitConfig, paper_counts: tuple[int, int, int] | None
) -> dict[str, Split]:
    """The split of every subject, without folds: by hash, or sorted, where the first train, the next validate.

    With ``counts`` auto the paper's train and val counts hold as soon as they leave a test subject (Workload: 26 and 5,
    from 32 subjects up); below that its proportions do, with at least one subject in every split.

    Raises:
        SplitError: fewer than 3 subjects, or counts that do not add up to the subjects.
    """
    ordered = sorted(set(subjects))
    if config.rule == "subject":
        return {subject: _by_hash(subject) for subject in ordered}
    if config.counts == "auto":
        counts = _auto(len(ordered), paper_counts)
    else:
        counts = config.counts
        if sum(counts) != len(ordered):
            raise SplitError(
                f"data.split.counts: {counts[0]} + {counts[1]} + {counts[2]} = {sum(counts)} subjects, "
                f"but {len(ordered)} are there; make them add up or use auto"
            )
    names = [split for split, count in zip(SPLITS, counts, strict=True) for _ in range(count)]
    return dict(zip(ordered, names, strict=True))


def in_hash_order(names: Iterable[str]) -> list[str]:
    """The names in an order that nobody chose and no seed or set order changes: that of their SHA-256."""
    return sorted(set(names), key=lambda name: (_hash(name), name))


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def _by_hash(subject: str) -> Split:
    """No data set's name enters: a person of several sets (TUEG, TUAB, TUEV, TUSL) is in the same split of each."""
    share = _hash(subject) / 2**64 * sum(DEFAULT_PROPORTIONS)
    if share < DEFAULT_PROPORTIONS[0]:
        return "train"
    return "val" if share < DEFAULT_PROPORTIONS[0] + DEFAULT_PROPORTIONS[1] else "test"


def _auto(num_subjects: int, paper_counts: tuple[int, int, int] | None) -> tuple[int, int, int]:
    if num_subjects < 3:
        raise SplitError(
            f"{num_subjects} subjects cannot be divided into train, val and test; at least 3 are needed "
            "(or set data.split.counts, for instance to [0, 0, 1])"
        )
    if paper_counts is not None and num_subjects > paper_counts[0] + paper_counts[1]:
        return paper_counts[0], paper_counts[1], num_subjects - paper_counts[0] - paper_counts[1]
    _, val_share, test_share = proportions = paper_counts or DEFAULT_PROPORTIONS
    # Rounded up: a subject more is worth most where it decides how sure a score is (eegmat's first 31: 21, 5 and 5).
    val = min(-(-num_subjects * val_share // sum(proportions)), num_subjects - 2)
    test = min(-(-num_subjects * test_share // sum(proportions)), num_subjects - 1 - val)
    return num_subjects - val - test, val, test
