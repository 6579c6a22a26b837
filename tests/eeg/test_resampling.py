import mne
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from neurolm.eeg.resampling import resample, resampled_size

RATES = st.sampled_from([100.0, 128.0, 160.0, 173.61, 250.0, 256.0, 500.0, 512.0, 1000.0])


@given(size=st.integers(1, 3000), old_hz=RATES, new_hz=st.sampled_from([200.0, 90.0]), seed=st.integers(0, 99))
def test_every_value_is_mnes(size: int, old_hz: float, new_hz: float, seed: int) -> None:
    signal = np.random.default_rng(seed).normal(0, 20, size) + 100
    before = signal.copy()
    expected = mne.filter.resample(signal, new_hz, old_hz, npad="auto", verbose="ERROR")
    result = resample(signal, old_hz, new_hz)
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(signal, before)
    assert len(result) == resampled_size(size, old_hz, new_hz)


def test_a_rate_rounded_in_the_header_is_the_same_rate() -> None:
    signal = np.arange(1000.0)
    assert resample(signal, 199.9999999, 200) is signal
    assert len(resample(signal, 199.9, 200)) == resampled_size(1000, 199.9, 200) == 1001
