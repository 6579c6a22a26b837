import numpy as np
import pytest

from neurolm.evaluation.released import released_metrics, released_scores


def test_an_unreadable_binary_answer_ranks_last_and_counts_as_no() -> None:
    scores = released_metrics(np.array([0, 0, 1, 1]), np.array([-1, 0, -1, 1]), 2)
    # Pairs of (1, 0): -1 against -1 and 0, 1 against both: half a point, none, and two.
    assert scores["roc_auc"] == pytest.approx(2.5 / 4)
    assert (scores["accuracy"], scores["balanced_accuracy"]) == (0.75, 0.75)
    # Two thresholds add recall: half of it at precision 1, the rest at 2/4.
    assert scores["pr_auc"] == pytest.approx(0.75)


def test_an_unreadable_answer_of_several_classes_is_the_last_class() -> None:
    labels = np.array([0, 1, 2, 2])
    scores = released_metrics(labels, np.array([0, -1, -1, 2]), 3)
    assert scores == released_metrics(labels, np.array([0, 2, 2, 2]), 3)
    assert (scores["accuracy"], scores["balanced_accuracy"]) == (0.75, pytest.approx(2 / 3))


def test_one_class_cannot_be_ranked() -> None:
    scores = released_scores(np.array([1, 1]), np.array([1, -1]), 2)
    assert (scores["roc_auc"], scores["pr_auc"], scores["balanced_accuracy"]) == (None, None, 0.5)
    assert scores["unreadable_answer_rate"] == 0.5
