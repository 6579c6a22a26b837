import math

import pytest
import torch

from neurolm.models.codebook_health import codebook_health


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
