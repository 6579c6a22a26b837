from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurolm.evaluation.comparison import aligned
from neurolm.evaluation.pooling import OUT_OF_FOLD, PoolingError, pool
from neurolm.evaluation.predictions import COLUMNS, Predictions, score
from tests.reports.evaluated import answers


def fold_of(whole: Predictions, subjects: set[str]) -> Predictions:
    """The answers to some subjects, with the rows of another store."""
    chosen = np.isin(whole.subject.astype(str), list(subjects))
    columns = {name: getattr(whole, name)[chosen] for name in COLUMNS}
    return replace(whole, **columns | {"row": np.arange(chosen.sum())})


@given(st.lists(st.integers(0, 3), min_size=7, max_size=7))
def test_pooled_answers_are_all_answers_whatever_the_folds(fold_of_subject: list[int]) -> None:
    whole = answers(1.0, num_subjects=7)
    members = [{f"s{s:02d}" for s, fold in enumerate(fold_of_subject) if fold == number} for number in range(4)]
    pooled = pool([fold_of(whole, one) for one in members if one], split=OUT_OF_FOLD, num_windows=len(whole))
    assert pooled.split == OUT_OF_FOLD
    assert sorted(pooled.row.tolist()) == list(range(len(whole)))
    ours, theirs = aligned(replace(pooled, split="test"), whole)
    for name in set(COLUMNS) - {"row"}:
        assert (getattr(ours, name) == getattr(theirs, name)).all(), name


def test_the_interval_is_over_the_subjects_of_all_folds() -> None:
    whole = answers(1.0, num_subjects=7)
    halves = [fold_of(whole, {f"s{number:02d}" for number in members}) for members in ((0, 3, 5), (1, 2, 4, 6))]
    pooled = score(pool(halves, split=OUT_OF_FOLD, num_windows=len(whole)))
    assert pooled.num_subjects == 7
    assert pooled.balanced_accuracy_ci95 == score(whole).balanced_accuracy_ci95
    assert score(halves[0]).balanced_accuracy_ci95 is None


def test_what_does_not_make_a_whole_is_refused() -> None:
    whole = answers(1.0, num_subjects=4)
    first, second = fold_of(whole, {"s00", "s01"}), fold_of(whole, {"s02", "s03"})
    cases = [
        ([first, fold_of(whole, {"s01", "s02", "s03"})], "subject s01 was tested in two folds"),
        ([first], "answered 16 windows, the data set has 32"),
        ([first, replace(second, task="other")], "differ in task"),
        ([], "no fold"),
    ]
    for folds, words in cases:
        with pytest.raises(PoolingError, match=words):
            pool(folds, split=OUT_OF_FOLD, num_windows=len(whole))
