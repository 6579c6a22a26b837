import numpy as np
import pytest

from neurolm.baselines.band_power import BANDS_HZ, log_band_power


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
