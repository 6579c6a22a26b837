import numpy as np
import pytest
import torch

from neurolm.models.losses import (
    frequency_target,
    next_second_codes,
    raw_target,
    squared_errors_of,
)


def test_raw_target_is_standardised_over_the_window() -> None:
    target = raw_target(3 + 5 * torch.randn(4, 6, 200))
    torch.testing.assert_close(target.mean((1, 2)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(target.std((1, 2)), torch.ones(4))


def test_frequency_target_against_numpy() -> None:
    signal = np.random.default_rng(0).standard_normal((3, 200))
    amplitudes = np.abs(np.fft.fft(signal))
    expected = ((amplitudes - amplitudes.mean()) / amplitudes.std(ddof=1))[:, :100]
    ours = frequency_target(torch.as_tensor(signal[None]))[0]
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("amplitude", ["linear", "log"])
def test_ten_hertz_is_bin_ten(amplitude: str) -> None:
    wave = torch.sin(2 * torch.pi * 10 * torch.arange(200) / 200).expand(1, 2, 200) + 0.01 * torch.randn(1, 2, 200)
    assert frequency_target(wave, amplitude).argmax(-1).tolist() == [[10, 10]]


def test_log_amplitudes_do_not_depend_on_the_unit() -> None:
    signal = torch.randn(2, 5, 200)
    torch.testing.assert_close(
        frequency_target(100 * signal, "log"), frequency_target(signal, "log"), atol=1e-4, rtol=1e-4
    )


def test_squared_error_of_half_precision_is_summed_in_full() -> None:
    output = torch.full((100_000,), 1.0, dtype=torch.bfloat16)
    assert squared_errors_of(output, torch.zeros(100_000)).sum() == 100_000


def test_a_token_predicts_its_channel_one_second_later() -> None:
    codes = torch.tensor([[10, 20, 11, 21, 12, 22]])  # channels 1x and 2x in seconds 0, 1, 2
    assert next_second_codes(codes, num_channels=2).tolist() == [[11, 21, 12, 22]]
