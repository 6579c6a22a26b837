"""Intervals by hand, and against scores of windows that were really copied."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from neurolm.evaluation.bootstrap import (
    RankedSubjects,
    bootstrap_by_subject,
    confusions_by_subject,
    interval,
    owners,
    subject_draws,
)


def by_subject(correct_of_ten: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ten windows of each class for every subject, so many of each answered rightly."""
    subjects = np.repeat([f"s{index}" for index in range(len(correct_of_ten))], 20)
    labels = np.tile(np.repeat([0, 1], 10), len(correct_of_ten))
    right = np.concatenate([np.tile(np.arange(10) < correct, 2) for correct in correct_of_ten])
    return subjects, labels, np.where(right, labels, 1 - labels)


def test_interval_needs_five_subjects() -> None:
    assert bootstrap_by_subject(*by_subject([5, 6, 7, 8]), num_classes=2) is None
    assert bootstrap_by_subject(*by_subject([5, 6, 7, 8, 9]), num_classes=2) is not None


def test_interval_is_that_of_subjects_not_of_windows() -> None:
    low, high = bootstrap_by_subject(*by_subject([0, 0, 10, 10, 10, 10]), num_classes=2)
    # Six subjects, each all right or all wrong: a draw's score is k/6 with k of Binomial(6, 2/3).
    assert (low, high) == (pytest.approx(2 / 6), pytest.approx(1.0))
    same = bootstrap_by_subject(*by_subject([7] * 6), num_classes=2)
    assert same == (pytest.approx(0.7), pytest.approx(0.7))


def test_interval_depends_on_the_seed_alone() -> None:
    arrays = by_subject([3, 5, 8, 9, 4, 10])
    order = np.random.default_rng(0).permutation(len(arrays[0]))
    first = bootstrap_by_subject(*arrays, num_classes=2, seed=1)
    assert first == bootstrap_by_subject(*(values[order] for values in arrays), num_classes=2, seed=1)
    assert first != bootstrap_by_subject(*by_subject([3, 5, 8, 9, 4, 9]), num_classes=2, seed=1)


def test_interval_survives_subjects_with_one_class() -> None:
    subjects = np.repeat(list("abcdef"), 2)
    labels = np.repeat([0, 0, 0, 0, 0, 1], 2)
    assert bootstrap_by_subject(subjects, labels, labels, num_classes=2) == (1.0, 1.0)


def test_confusions_add_up() -> None:
    names, owner = owners(["b", "a", "b", "b"])
    assert names.tolist() == ["a", "b"] and owner.tolist() == [1, 0, 1, 1]
    each = confusions_by_subject(owner, np.array([0, 1, 1, 1]), np.array([0, 0, 1, 0]), 2)
    assert each.tolist() == [[[0, 0], [1, 0]], [[1, 0], [1, 1]]]
    with pytest.raises(ValueError, match="outside"):
        confusions_by_subject(owner, np.array([0, 1, 1, 1]), np.array([0, 0, 2, 0]), 2)


def test_every_draw_has_as_many_subjects_as_there_are() -> None:
    drawn = subject_draws(7, draws=50, seed=3)
    assert drawn.shape == (50, 7) and (drawn.sum(axis=1) == 7).all() and (drawn == 0).any() and (drawn > 1).any()


def test_an_interval_of_too_few_defined_draws_is_none() -> None:
    assert interval(np.array([0.1, 0.5, np.nan, np.nan])) == (pytest.approx(0.11), pytest.approx(0.49))
    assert interval(np.array([0.1, np.nan, np.nan])) is None


def test_ranks_of_two_subjects_by_hand() -> None:
    owner = np.array([0, 0, 1, 1])
    is_positive = np.array([True, False, True, False])
    ranked = RankedSubjects.of([(is_positive, np.array([2.0, 1.0, 1.0, 3.0]))], owner)
    # Positive 2 of subject 0 is above negative 1, below 3; positive 1 of subject 1 ties with 1, below 3.
    assert ranked.in_order.tolist() == [[[1.0, 0.0], [0.5, 0.0]]]
    assert ranked.auroc(np.array([[1, 1], [2, 0], [0, 1], [2, 1]])) == pytest.approx([1.5 / 4, 1.0, 0.0, 5 / 9])


@given(st.data())
def test_a_weight_is_a_copy(data: st.DataObject) -> None:
    num = data.draw(st.integers(4, 30))
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    owner = np.concatenate([np.arange(3), rng.integers(0, 3, num)])
    labels, scores = rng.integers(0, 3, num + 3), rng.integers(0, 5, (num + 3, 3)).astype(float)
    ranked = RankedSubjects.of([(labels == index, scores[:, index]) for index in range(3)], owner)
    weights = rng.integers(0, 3, size=(4, 3))
    for weight, area in zip(weights, ranked.auroc(weights), strict=True):
        copies = np.repeat(np.arange(num + 3), weight[owner])
        if len(set(labels[copies].tolist())) < 3:
            assert np.isnan(area)
            continue
        areas = [roc_auc_score(labels[copies] == index, scores[copies, index]) for index in range(3)]
        assert area == pytest.approx(np.mean(areas))
