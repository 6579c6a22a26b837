import math

import torch

from neurolm.models.spectrum_embedding import SpectrumEmbedding, log_spectrum


def test_a_sine_stands_out_in_its_bin() -> None:
    seconds = torch.arange(200) / 200
    signal = 0.01 * torch.randn(1, 3, 200)
    signal[0, 1] += torch.sin(2 * math.pi * 10 * seconds)
    found = log_spectrum(signal)
    assert found.shape == (1, 3, 100)
    assert found.flatten(1).argmax() == 100 + 10


def test_windows_are_standardised_one_by_one_and_whatever_their_amplitude() -> None:
    signal = torch.randn(2, 4, 200)
    found = log_spectrum(signal)
    torch.testing.assert_close(found.mean((1, 2)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std((1, 2), unbiased=False), torch.ones(2), atol=1e-4, rtol=0)
    louder = log_spectrum(torch.cat([signal[:1] * 50, signal[1:]]))
    torch.testing.assert_close(louder, found, atol=1e-4, rtol=0)


def test_flat_windows_and_none_stay_finite() -> None:
    model = SpectrumEmbedding(8)
    flat = model(torch.zeros(2, 4, 200))
    assert flat.isfinite().all()
    torch.testing.assert_close(log_spectrum(torch.zeros(2, 4, 200)), torch.zeros(2, 4, 100))
    assert model(torch.zeros(0, 4, 200)).shape == (0, 4, 8)
    flat.sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())
