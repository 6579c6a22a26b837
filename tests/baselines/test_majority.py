from pathlib import Path

import numpy as np

from neurolm.baselines.fitted import predictions_of
from neurolm.baselines.majority import Majority
from neurolm.evaluation.predictions import score
from tests.baselines.toy import LABELS, TASK, indices, toy_store


def test_every_window_is_answered_with_the_commonest_class(tmp_path: Path) -> None:
    store = toy_store(tmp_path)
    train, val = indices(store)
    uneven = train.take((train.label == LABELS[1]) | (train.subject == "s0"))  # 24 of one class, 4 of the other
    found = predictions_of(Majority(TASK, uneven), TASK, store, val, "val")
    assert (found.predicted == 1).all()
    np.testing.assert_allclose(found.probabilities, np.tile([4 / 28, 24 / 28], (len(val), 1)))
    result = score(found)
    assert (result.balanced_accuracy, result.auroc, result.invalid_answer_rate) == (0.5, 0.5, 0.0)


def test_a_class_that_was_never_seen_is_never_answered(tmp_path: Path) -> None:
    store = toy_store(tmp_path)
    train, val = indices(store)
    found = predictions_of(Majority(TASK, train.take(train.label == LABELS[0])), TASK, store, val, "val")
    assert (found.predicted == 0).all() and np.isfinite(found.log_likelihoods).all()
