from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neurolm.baselines.band_power import BANDS_HZ, NUM_SHUFFLES, BandPower, log_band_power
from neurolm.baselines.fitted import predictions_of
from neurolm.evaluation.predictions import score
from tests.baselines.toy import TASK, indices, toy_store


@pytest.mark.parametrize("frequency_hz", [2.0, 6.0, 10.0, 20.0, 40.0])
def test_a_sine_has_its_power_in_its_band(frequency_hz: float) -> None:
    """Amplitude A is a power of A²/2; Welch's density times the width of the band is that."""
    signal = 20 * np.sin(2 * np.pi * frequency_hz * np.arange(1600) / 200)[None, None].astype(np.float32)
    power = 10 ** log_band_power(signal)[0, 0]
    ((name, (low, high)),) = ((name, ends) for name, ends in BANDS_HZ.items() if ends[0] <= frequency_hz < ends[1])
    place = list(BANDS_HZ).index(name)
    assert power.argmax() == place
    assert power[place] * (high - low) == pytest.approx(20**2 / 2, rel=0.02)
    assert power[place] > 100 * np.delete(power, place).max()


def test_a_flat_channel_has_a_number() -> None:
    assert np.isfinite(log_band_power(np.zeros((1, 2, 400), dtype=np.float32))).all()


def test_a_rhythm_is_found_in_other_subjects(tmp_path: Path) -> None:
    store = toy_store(tmp_path)
    train, val = indices(store)
    fitted = BandPower(TASK, store, train, seed=0, batch_size=7)
    assert score(predictions_of(fitted, TASK, store, val, "val")).balanced_accuracy == 1.0
    assert fitted.num_parameters == 4 * 5 + 1


def test_shuffled_is_the_same_with_labels_dealt_out_anew_answering_in_turn(tmp_path: Path) -> None:
    store = toy_store(tmp_path)
    train, val = indices(store)
    found = BandPower(TASK, store, train, seed=0, batch_size=7, shuffled=True).answers(store, val)
    rng = np.random.default_rng(0)
    for turn in range(NUM_SHUFFLES):
        dealt = replace(train, label=rng.permutation(train.label))
        by_hand = BandPower(TASK, store, dealt, seed=0, batch_size=7).answers(store, val)
        mine = slice(turn, None, NUM_SHUFFLES)
        np.testing.assert_array_equal(found.log_likelihoods[mine], by_hand.log_likelihoods[mine])
