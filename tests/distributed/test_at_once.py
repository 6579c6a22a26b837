import functools

import pytest

from neurolm.config import UserError
from neurolm.distributed.at_once import run_at_once

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("default")]


def _square(number: int) -> int:
    if number < 0:
        raise UserError(f"{number}: found a negative number")
    return number**2


def test_results_come_in_order(ray_cluster: None) -> None:
    calls = [functools.partial(_square, number) for number in range(5)]
    assert run_at_once(calls, 2, "squares") == [0, 1, 4, 9, 16]


def test_an_error_is_raised_as_it_was(ray_cluster: None) -> None:
    with pytest.raises(UserError, match="-1: found a negative number"):
        run_at_once([functools.partial(_square, number) for number in (1, -1, 2)], 1, "squares")
