from dataclasses import replace
from pathlib import Path

import numpy as np

from neurolm.baselines.band_power import log_band_power
from neurolm.baselines.feature_regression import NUM_SHUFFLES, FeatureRegression
from neurolm.baselines.fitted import predictions_of
from neurolm.evaluation.predictions import score
from tests.baselines.toy import TASK, indices, toy_store


def test_a_rhythm_is_found_in_other_subjects(tmp_path: Path) -> None:
    store = toy_store(tmp_path)
    train, val = indices(store)
    fitted = FeatureRegression(log_band_power, TASK, store, train, seed=0, batch_size=7)
    assert score(predictions_of(fitted, TASK, store, val, "val")).balanced_accuracy == 1.0
    assert fitted.num_parameters == 4 * 5 + 1


def test_of_one_subject_it_learns_with_a_strength_that_was_not_chosen(tmp_path: Path) -> None:
    store = toy_store(tmp_path)
    train, val = indices(store)
    one = train.take(train.subject == train.subject[0])
    fitted = FeatureRegression(log_band_power, TASK, store, one, seed=0, batch_size=7)
    assert score(predictions_of(fitted, TASK, store, val, "val")).balanced_accuracy > 0.8


def test_shuffled_is_the_same_with_labels_dealt_out_anew_answering_in_turn(tmp_path: Path) -> None:
    store = toy_store(tmp_path)
    train, val = indices(store)
    found = FeatureRegression(log_band_power, TASK, store, train, seed=0, batch_size=7, shuffled=True).answers(
        store, val
    )
    rng = np.random.default_rng(0)
    for turn in range(NUM_SHUFFLES):
        dealt = replace(train, label=rng.permutation(train.label))
        by_hand = FeatureRegression(log_band_power, TASK, store, dealt, seed=0, batch_size=7).answers(store, val)
        mine = slice(turn, None, NUM_SHUFFLES)
        np.testing.assert_array_equal(found.log_likelihoods[mine], by_hand.log_likelihoods[mine])
