"""Calibration by hand and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from neurolm.evaluation.calibration import calibration
from neurolm.evaluation.predictions import FLOOR, Predictions


def answers(probabilities: list[list[float]], labels: list[int]) -> Predictions:
    n = len(labels)
    with np.errstate(divide="ignore"):
        likelihoods = np.log(np.array(probabilities)) - 1.0  # what all answers share does not matter
    return Predictions(
        task="any", labels=tuple("abc"[: likelihoods.shape[1]]), positive_class=None, split="test", row=np.arange(n),
        recording=np.array(["r"] * n, object), subject=np.array(["s"] * n, object), start_s=np.zeros(n),
        label_index=np.array(labels), log_likelihoods=likelihoods, greedy_valid=np.ones(n, bool),
    )  # fmt: skip


def test_by_hand() -> None:
    found = calibration(answers([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.35, 0.65]], [0, 0, 0, 1]), num_bins=2)
    assert [(one.low, one.high, one.num_windows) for one in found.bins] == [(0.5, 1.0, 4)]
    assert found.bins[0].confidence == pytest.approx((0.9 + 0.8 + 0.7 + 0.65) / 4)
    assert found.bins[0].accuracy == 3 / 4
    assert found.expected_calibration_error == pytest.approx(0.7625 - 0.75)
    assert found.negative_log_likelihood == pytest.approx(-np.log([0.9, 0.2, 0.7, 0.65]).mean())
    assert found.brier == pytest.approx(2 * np.mean([0.1**2, 0.8**2, 0.3**2, 0.35**2]))


def test_bins_are_weighted_by_their_windows_and_own_their_upper_edge() -> None:
    found = calibration(answers([[0.75, 0.25]] * 3 + [[1.0, 0.0]], [0, 0, 1, 1]), num_bins=4)
    assert [(one.low, one.num_windows, one.accuracy) for one in found.bins] == [(0.5, 3, 2 / 3), (0.75, 1, 0.0)]
    assert found.expected_calibration_error == pytest.approx((3 * (0.75 - 2 / 3) + 1.0) / 4)


def test_agrees_with_scikit_learn_on_three_classes() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([1, 2, 3], size=50)
    labels = rng.integers(0, 3, 50)
    found = calibration(answers(probabilities.tolist(), labels.tolist()))
    assert found.negative_log_likelihood == pytest.approx(log_loss(labels, probabilities, labels=[0, 1, 2]))
    wanted = brier_score_loss(labels, probabilities, labels=[0, 1, 2], scale_by_half=False)
    assert found.brier == pytest.approx(wanted)
    assert sum(one.num_windows for one in found.bins) == 50 and found.num_bins == 15


def test_what_was_thought_impossible_costs_much_but_not_infinitely_much() -> None:
    found = calibration(answers([[1.0, 0.0]], [1]))
    assert found.negative_log_likelihood == -FLOOR and found.brier == 2.0
    assert found.expected_calibration_error == 1.0


def test_perfectly_calibrated_answers_have_no_error() -> None:
    assert calibration(answers([[0.75, 0.25]] * 4, [0, 0, 0, 1])).expected_calibration_error == pytest.approx(0.0)
