import numpy as np

from neurolm.baselines.log_covariance import mean_log_covariance


def coupled(windows: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Three channels of noise in µV, of which the second is partly the first."""
    signals = 20 * rng.standard_normal((windows, 3, 800))
    signals[:, 1] = share * signals[:, 0] + (1 - share**2) ** 0.5 * signals[:, 1]
    return signals.astype(np.float32)


def test_every_variance_and_every_pair_once_and_no_unit() -> None:
    rng = np.random.default_rng(0)
    signals = coupled(6, 0.0, rng)
    found = mean_log_covariance(signals)
    assert found.shape == (6, 8 * 3 + 8 * 3)
    np.testing.assert_allclose(mean_log_covariance(30 * signals), found, atol=2e-3)
    order = [2, 0, 1]
    permuted = mean_log_covariance(signals[:, order])
    np.testing.assert_allclose(np.sort(permuted, axis=1), np.sort(found, axis=1), atol=1e-3)


def test_what_goes_together_is_seen_where_power_is_equal() -> None:
    rng = np.random.default_rng(1)
    alone, together = (mean_log_covariance(coupled(40, share, rng)).mean(0) for share in (0.0, 0.8))
    pairs = slice(24, None)
    by_band = (together - alone)[pairs].reshape(8, 3)  # 0 with 1, 0 with 2, 1 with 2
    assert (by_band[:, 0] > 0.5).all()
    assert np.abs(by_band[:, 1:]).max() < 0.4
