import torch

from neurolm.models.standardisation import FixedStandardisation, RunningStandardisation


def test_starts_from_samples_and_moves_by_what_was_collected() -> None:
    layer = RunningStandardisation(2, decay=0.5)
    layer.start(torch.tensor([[0.0, 1.0], [2.0, 5.0]]))
    assert layer.mean.tolist() == [1.0, 3.0]
    assert layer.variance.tolist() == [1.0, 4.0]
    torch.testing.assert_close(layer(torch.tensor([3.0, 5.0])), torch.tensor([2.0, 1.0]))
    layer.update(lambda sums: sums)
    assert layer.mean.tolist() == [2.0, 4.0]
    assert layer.variance.tolist() == [0.5, 2.0]


def test_statistics_do_not_depend_on_how_tokens_were_divided() -> None:
    values = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    whole, first, second = (RunningStandardisation(3) for _ in range(3))
    whole(values)
    first(values[:5])
    second(values[5:])
    total = first.sums + second.sums
    whole.update(lambda sums: sums)
    first.update(lambda sums: total)
    torch.testing.assert_close(first.mean, whole.mean)
    torch.testing.assert_close(first.variance, whole.variance)


def test_evaluation_collects_nothing_and_an_empty_update_changes_nothing() -> None:
    layer = RunningStandardisation(2).eval()
    layer(torch.ones(4, 2))
    layer.update(lambda sums: sums)
    assert layer.mean.tolist() == [0.0, 0.0] and layer.variance.tolist() == [1.0, 1.0]


def test_fixed_statistics_are_those_of_all_workers_together() -> None:
    values = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)) * 5 + 2
    whole, part = FixedStandardisation(3), FixedStandardisation(3)
    whole.start([values], lambda sums: sums)
    other = RunningStandardisation(3)
    other(values[5:])
    part.start([values[:2], values[2:5]], lambda sums: sums + other.sums)
    torch.testing.assert_close(part.mean, whole.mean)
    torch.testing.assert_close(part.deviation, whole.deviation)
    standardised = whole(values)
    torch.testing.assert_close(standardised.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(standardised.std(0, unbiased=False), torch.ones(3), atol=1e-5, rtol=0)
