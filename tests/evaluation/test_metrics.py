"""Scores by hand, against scikit-learn and against the values that the released code reports."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from neurolm.evaluation.metrics import (
    auc_pr,
    auroc,
    balanced_accuracy,
    bootstrap_by_subject,
    cohen_kappa,
    confusion_matrix,
    macro_auroc,
    weighted_f1,
)


def test_scores_by_hand() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1])
    predicted = np.array([0, 0, 0, 1, 1, 0])
    confusion = confusion_matrix(labels, predicted, 2)
    assert confusion.tolist() == [[3, 1], [1, 1]]
    assert balanced_accuracy(confusion) == pytest.approx((3 / 4 + 1 / 2) / 2)
    expected_by_chance = (4 * 4 + 2 * 2) / 36
    assert cohen_kappa(confusion) == pytest.approx((4 / 6 - expected_by_chance) / (1 - expected_by_chance))
    assert weighted_f1(labels, predicted, 2) == pytest.approx((4 * 6 / 8 + 2 * 2 / 4) / 6)


def test_ranks_by_hand() -> None:
    is_positive = np.array([True, False, True, False])
    score = np.array([3.0, 2.0, 1.0, 0.0])
    assert auroc(is_positive, score) == pytest.approx(3 / 4)  # three of the four pairs are in order
    assert auc_pr(is_positive, score) == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert auroc(np.array([True, True]), np.array([1.0, 2.0])) is None
    assert auc_pr(np.array([False]), np.array([1.0])) is None


def test_multi_class_auroc_needs_every_class() -> None:
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.3, 0.4, 0.3]])
    labels = np.array([0, 1, 2, 2])
    expected = sklearn_metrics.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    assert macro_auroc(labels, probabilities) == pytest.approx(expected)
    assert macro_auroc(np.array([0, 1, 1, 1]), probabilities) is None


def test_a_class_that_never_occurs_counts_for_nothing() -> None:
    labels, predicted = np.array([0, 0, 1]), np.array([0, 2, 1])
    confusion = confusion_matrix(labels, predicted, 4)
    assert balanced_accuracy(confusion) == pytest.approx((1 / 2 + 1) / 2)
    assert weighted_f1(labels, predicted, 4) == pytest.approx((2 * (2 / 3) + 1) / 3)
    only_one = np.zeros(3, dtype=int)
    assert cohen_kappa(confusion_matrix(only_one, only_one, 2)) == 0.0


def test_an_index_that_is_no_class_is_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        confusion_matrix(np.array([0]), np.array([-1]), 2)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_agrees_with_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = np.array(pairs).T
    confusion = confusion_matrix(labels, predicted, 4)
    occurring = sorted(set(labels.tolist()))
    recalls = sklearn_metrics.recall_score(labels, predicted, labels=occurring, average=None, zero_division=0.0)
    assert balanced_accuracy(confusion) == pytest.approx(np.mean(recalls))
    if len({*labels.tolist(), *predicted.tolist()}) > 1:
        assert cohen_kappa(confusion) == pytest.approx(sklearn_metrics.cohen_kappa_score(labels, predicted))


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
