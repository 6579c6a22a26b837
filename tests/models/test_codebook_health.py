import math

import pytest
import torch

from neurolm.models.codebook_health import codebook_alarms, codebook_health


def test_health_of_codes_that_only_say_where() -> None:
    channel, time = torch.arange(4).repeat(3), torch.arange(3).repeat_interleave(4)
    codes = (4 * time + channel).expand(10, -1)
    health = codebook_health(codes, channel, time, codebook_size=24)
    assert health.usage == 0.5
    assert health.perplexity == pytest.approx(12)
    assert health.conditional_entropy == pytest.approx(0, abs=1e-9)
    assert health.conditional_entropy_limit == pytest.approx(math.log(10))


def test_health_of_codes_that_say_nothing_of_where() -> None:
    codes = torch.arange(8)[:, None].expand(-1, 6)
    health = codebook_health(codes, torch.arange(3).repeat(2), torch.arange(2).repeat_interleave(3), codebook_size=8)
    assert health.usage == 1
    entropies = [health.entropy, health.conditional_entropy, health.conditional_entropy_limit]
    assert entropies == pytest.approx([math.log(8)] * 3)


def metrics(codes: torch.Tensor, channel: torch.Tensor, time: torch.Tensor, codebook_size: int) -> dict[str, float]:
    return {f"codebook_{n}": v for n, v in vars(codebook_health(codes, channel, time, codebook_size)).items()}


def test_an_alarm_names_the_numbers_of_a_positional_codebook() -> None:
    channel, time = torch.arange(4).repeat(3), torch.arange(3).repeat_interleave(4)
    codes = (4 * time + channel).expand(10, -1)
    (alarm,) = codebook_alarms(metrics(codes, channel, time, 24), 24)
    assert alarm.startswith("positional codebook: codes have 2.48 nats, 0.00 once their channel")


def test_an_alarm_names_the_numbers_of_a_collapsed_codebook() -> None:
    codes = torch.zeros(10, 6, dtype=torch.long)
    codes[0, 0] = 1
    (alarm,) = codebook_alarms(metrics(codes, torch.arange(6), torch.zeros(6, dtype=torch.long), 512), 512)
    assert alarm.startswith("collapsed codebook: perplexity 1.1 of 512 codes, 0.4% in use")


def test_no_alarm_for_codes_that_tell_windows_apart() -> None:
    codes = torch.arange(8)[:, None].expand(-1, 6)
    assert not codebook_alarms(metrics(codes, torch.arange(3).repeat(2), torch.arange(2).repeat_interleave(3), 8), 8)
