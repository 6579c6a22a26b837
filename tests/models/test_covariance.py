"""Log-covariances against scipy's matrix logarithm, and what must not change them."""

import numpy as np
import pytest
import scipy.linalg
import torch

from neurolm.models.covariance import (
    BANDS_HZ,
    NUM_BANDS,
    SHRINKAGE,
    SMALLEST,
    covariance_target,
    log_covariance,
)

CHANNELS, SECONDS = 3, 2


def signals(batch: int = 2, num_channels: int = CHANNELS) -> torch.Tensor:
    return torch.randn(batch, SECONDS * num_channels, 200, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels", [3, 17])
def test_against_scipy(channels: int) -> None:
    """With more values than channels in every band, and with fewer in most."""
    signal = signals(num_channels=channels)
    variance, coupling = log_covariance(signal, channels)
    spectrum = np.fft.rfft(signal.double().numpy().reshape(2, SECONDS, channels, 200)) / 200
    logs = np.zeros((2, SECONDS, NUM_BANDS, channels, channels))
    for window, second, band in np.ndindex(2, SECONDS, NUM_BANDS):
        low, high = BANDS_HZ[band]
        part = spectrum[window, second, :, low:high]
        matrix = (part @ part.conj().T).real
        mean = np.trace(matrix) / channels + SMALLEST
        logs[window, second, band] = scipy.linalg.logm((1 - SHRINKAGE) * matrix + SHRINKAGE * mean * np.eye(channels))
    diagonal = np.einsum("wsbcc->wsbc", logs)
    expected = diagonal - diagonal.mean((1, 2, 3), keepdims=True)
    for second, channel in np.ndindex(SECONDS, channels):
        token = second * channels + channel
        np.testing.assert_allclose(variance[:, token], expected[:, second, :, channel], atol=1e-3)
        row = logs[:, second, :, channel].copy()
        row[..., channel] = 0
        np.testing.assert_allclose(coupling[:, token], row, atol=1e-3)


def test_neither_the_unit_nor_other_windows_matter() -> None:
    signal = signals(3)
    found = log_covariance(signal, CHANNELS)
    for one, louder in zip(found, log_covariance(20 * signal, CHANNELS), strict=True):
        torch.testing.assert_close(louder, one, atol=1e-3, rtol=1e-3)
    for one, alone in zip(found, log_covariance(signal[1:2], CHANNELS), strict=True):
        torch.testing.assert_close(alone, one[1:2], atol=1e-4, rtol=1e-4)


def test_silence_flat_channels_and_no_windows_are_finite() -> None:
    flat = signals()
    flat[0] = 0
    flat[1, ::CHANNELS] = 0
    for part in (*log_covariance(flat, CHANNELS), covariance_target(log_covariance(flat, CHANNELS))):
        assert part.isfinite().all()
    assert covariance_target(log_covariance(flat[:0], CHANNELS)).shape == (
        0,
        SECONDS * CHANNELS,
        NUM_BANDS * (1 + CHANNELS),
    )


def test_products_are_exact_under_autocast() -> None:
    signal = signals()
    with torch.autocast("cpu", torch.bfloat16):
        found = log_covariance(signal, CHANNELS)
    for one, expected in zip(found, log_covariance(signal, CHANNELS), strict=True):
        assert torch.equal(one, expected)


def test_targets_are_standardised_over_the_window_in_two_parts() -> None:
    target = covariance_target(log_covariance(signals(), CHANNELS))
    for part in (target[..., :NUM_BANDS], target[..., NUM_BANDS:]):
        torch.testing.assert_close(part.mean((1, 2)), torch.zeros(2), atol=1e-5, rtol=0)
        torch.testing.assert_close(part.std((1, 2), unbiased=False), torch.ones(2), atol=1e-3, rtol=0)
