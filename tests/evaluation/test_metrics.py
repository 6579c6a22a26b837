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
    cohen_kappa,
    confusion_matrix,
    mean_auroc,
    recall,
    weighted_f1,
)


def test_scores_by_hand() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1])
    predicted = np.array([0, 0, 0, 1, 1, 0])
    confusion = confusion_matrix(labels, predicted, 2)
    assert confusion.tolist() == [[3, 1], [1, 1]]
    assert balanced_accuracy(confusion) == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert recall(confusion) == [3 / 4, 1 / 2]
    expected_by_chance = (4 * 4 + 2 * 2) / 36
    assert cohen_kappa(confusion) == pytest.approx((4 / 6 - expected_by_chance) / (1 - expected_by_chance))
    assert weighted_f1(confusion) == pytest.approx((4 * 6 / 8 + 2 * 2 / 4) / 6)


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
    rankings = [(labels == index, probabilities[:, index]) for index in range(3)]
    assert mean_auroc(rankings) == pytest.approx(expected)
    assert mean_auroc([*rankings, (np.zeros(4, dtype=bool), probabilities[:, 0])]) is None


def test_a_class_that_never_occurs_counts_for_nothing() -> None:
    labels, predicted = np.array([0, 0, 1]), np.array([0, 2, 1])
    confusion = confusion_matrix(labels, predicted, 4)
    assert balanced_accuracy(confusion) == pytest.approx((1 / 2 + 1) / 2)
    assert weighted_f1(confusion) == pytest.approx((2 * (2 / 3) + 1) / 3)
    assert recall(confusion) == [1 / 2, 1.0, None, None]
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
    f1 = sklearn_metrics.f1_score(labels, predicted, labels=range(4), average="weighted", zero_division=0.0)
    assert weighted_f1(confusion) == pytest.approx(f1)
    if len({*labels.tolist(), *predicted.tolist()}) > 1:
        assert cohen_kappa(confusion) == pytest.approx(sklearn_metrics.cohen_kappa_score(labels, predicted))


def test_many_matrices_at_once() -> None:
    matrices = np.random.default_rng(0).integers(0, 9, size=(5, 3, 3))
    for score in (balanced_accuracy, cohen_kappa, weighted_f1):
        assert score(matrices) == pytest.approx([float(score(one)) for one in matrices])
