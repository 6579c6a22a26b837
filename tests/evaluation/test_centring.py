from dataclasses import replace

import numpy as np
import pytest

from neurolm.evaluation.centring import centred_by_subject
from neurolm.evaluation.details import details
from neurolm.evaluation.predictions import Predictions, score
from tests.evaluation.test_details import binary


def with_offsets() -> Predictions:
    """Every subject's work is one above its rest, from an offset that is larger than that."""
    offsets = {"a": 3.0, "b": -3.0, "c": 0.0}
    odds = [offsets[one] + sign / 2 for one in "abc" for sign in (-1, 1)]
    return binary(odds, [0, 1] * 3, "aabbcc", "ABCDEF")


def test_a_subjects_offset_is_taken_off() -> None:
    plain = with_offsets()
    centred = centred_by_subject(plain)
    assert centred is not None
    assert score(plain).balanced_accuracy == pytest.approx(4 / 6) and score(centred).balanced_accuracy == 1.0
    odds = centred.log_likelihoods[:, 1] - centred.log_likelihoods[:, 0]
    assert odds == pytest.approx(np.array([-0.5, 0.5] * 3))
    found = details(plain).as_dict()
    assert found["centred_by_subject"] == {
        "balanced_accuracy": 1.0, "balanced_accuracy_ci95": None, "auroc": 1.0, "auroc_ci95": None,
    }  # fmt: skip
    assert found["confusion_matrix"] == [[2, 1], [1, 2]]  # the plain scores stay what they are


def test_labels_are_not_read() -> None:
    plain = with_offsets()
    turned = replace(plain, label_index=1 - plain.label_index)
    one, other = centred_by_subject(plain), centred_by_subject(turned)
    assert one is not None and other is not None
    assert np.array_equal(one.log_likelihoods, other.log_likelihoods)


def test_where_it_would_mean_nothing_there_is_none() -> None:
    assert centred_by_subject(binary([1, -1, 2], [1, 0, 1], "aab", "ABC")) is None
    three = replace(with_offsets(), labels=("W", "N2", "N3"), log_likelihoods=np.zeros((6, 3)), positive_class=None)
    assert centred_by_subject(three) is None
