import torch

from neurolm.baselines.scaling import DeviationScale, MicrovoltScale, PercentileScale


def test_signals_in_the_units_of_each_paper() -> None:
    signal = torch.linspace(-100, 100, 201).expand(2, 3, -1).clone()
    signal[0, 1] *= 7
    signal[1, 2] = 0
    found = PercentileScale()(signal)
    torch.testing.assert_close(found[0, 1], found[0, 0])  # amplitude goes
    torch.testing.assert_close(found[0, 0].abs().max(), torch.tensor(100 / 95))
    assert (found[1, 2] == 0).all()
    torch.testing.assert_close(MicrovoltScale()(signal), signal / 100)
    found = DeviationScale(torch.tensor([2.0, 4.0, 0.0]))(signal)
    torch.testing.assert_close(found[:, 1], signal[:, 1] / 4)
    assert torch.isfinite(found).all()
