"""Train, val and test by subject: no person is in two splits, and the same people always give the same splits."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from neurolm.config import UserError, config

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
DEFAULT_PROPORTIONS = (70, 15, 15)
"""For data sets that the paper does not split."""

Count = Annotated[int, Field(ge=0)]


class SplitError(UserError):
    """Subjects that cannot be divided as asked."""


@config
class SplitConfig:
    """How subjects are divided into train, val and test."""

    counts: Literal["auto"] | tuple[Count, Count, Count] = "auto"
    """Numbers of train, val and test subjects in sorted order; auto takes the paper's numbers (the rest is test) where
    there are enough subjects, else the same proportions of those present."""


def split_subjects(
    subjects: Iterable[str], config: SplitConfig, paper_counts: tuple[int, int, int] | None
) -> dict[str, Split]:
    """The split of every subject: sorted, the first are train, the next val, the rest test.

    With ``auto`` the paper's train and val counts hold as soon as they leave a test subject (Workload: 26 and 5, from
    32 subjects up); below that its proportions do, with at least one subject in every split.

    Raises:
        SplitError: fewer than 3 subjects, or counts that do not add up to the subjects present.
    """
    ordered = sorted(set(subjects))
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
