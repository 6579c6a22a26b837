import warnings

import mne
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from neurolm.eeg.filtering import band_pass, filtered, notch

RATES = st.sampled_from([100.0, 128.0, 160.0, 173.61, 200.0, 250.0, 256.0, 500.0, 512.0])


@settings(max_examples=60)
@given(size=st.one_of(st.integers(2, 3000), st.integers(20_000, 60_000)), rate_hz=RATES, seed=st.integers(0, 99))
def test_every_value_is_mnes(size: int, rate_hz: float, seed: int) -> None:
    signal = np.random.default_rng(seed).normal(0, 20, size) + 100
    before = signal.copy()
    high_hz = 75.0 if rate_hz > 150 else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # short signals
        expected = mne.filter.filter_data(signal, rate_hz, 0.1, high_hz, verbose="ERROR")
        notched = mne.filter.notch_filter(signal, rate_hz, 40.0, verbose="ERROR")
    np.testing.assert_array_equal(filtered(band_pass(rate_hz, 0.1, high_hz), signal), expected)
    np.testing.assert_array_equal(filtered(notch(rate_hz, 40.0), signal), notched)
    np.testing.assert_array_equal(signal, before)


def test_a_filter_is_designed_once() -> None:
    assert band_pass(200.0, 0.1, 75.0) is band_pass(200.0, 0.1, 75.0)
    assert notch(200.0, 50.0) is not notch(200.0, 60.0)
