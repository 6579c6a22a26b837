"""Search spaces: what is drawn, when, and what is refused."""

from typing import Any

import optuna
import pytest

from neurolm.config import ConfigError, build
from neurolm.distributed.search_space import Distribution, check_conditions, draw, example, grid, misfits, stored

LORA: dict[str, dict[str, Any]] = {
    "lora": {"choice": [None, {}]},
    "lora.rank": {"log_integer": [4, 64], "when": {"lora": [{}]}},
    "lora.dropout": {"uniform": [0.0, 0.2], "when": {"lora": [{}], "lora.rank": list(range(4, 65))}},
}


def space_of(settings: dict[str, dict[str, Any]]) -> dict[str, Distribution]:
    return {name: build(Distribution, values, source="test") for name, values in settings.items()}


def drawn(settings: dict[str, dict[str, Any]], fixed: dict[str, Any]) -> dict[str, Any]:
    return draw(space_of(settings), optuna.trial.FixedTrial(fixed))  # type: ignore[arg-type]


def test_every_kind_is_drawn_within_its_bounds() -> None:
    space = space_of(
        {
            "a": {"uniform": [0.1, 0.2]},
            "b": {"log_uniform": [1e-6, 1e-3]},
            "c": {"integer": [2, 5]},
            "d": {"log_integer": [1, 100]},
            "e": {"choice": [0.0, "x", None, [0.9, 0.95], True]},
        }
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    points = [draw(space, study.ask()) for _ in range(60)]
    assert all(not list(misfits(space, point)) for point in points)
    assert {type(point["c"]) for point in points} == {int} and {point["c"] for point in points} == {2, 3, 4, 5}
    assert sum(point["b"] < 3e-5 for point in points) in range(18, 43)  # half of them, in the logarithm
    assert [0.9, 0.95] in [point["e"] for point in points] and None in [point["e"] for point in points]


def test_a_condition_looks_at_what_was_drawn() -> None:
    assert drawn(LORA, {"lora": None}) == {"lora": None}
    assert drawn(LORA, {"lora": "{}", "lora.rank": 8, "lora.dropout": 0.1}) == {
        "lora": {}, "lora.rank": 8, "lora.dropout": 0.1
    }  # fmt: skip
    assert example(space_of(LORA), "lora.dropout") == {"lora": {}, "lora.rank": 4}
    space = space_of(LORA)
    assert space["lora.rank"].describe() == "log_integer [4, 64] if lora is one of [{}]"
    assert list(misfits(space, {"lora": None, "lora.rank": 8})) == [
        "lora.rank is given although its condition does not hold: log_integer [4, 64] if lora is one of [{}]"
    ]
    assert stored(space, {"lora": {}, "lora.rank": 8})[0] == {"lora": "{}", "lora.rank": 8}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "exactly one"),
        ({"uniform": [0, 1], "choice": [1]}, "exactly one"),
        ({"uniform": [1, 0]}, "the lower bound is above"),
        ({"log_uniform": [0, 1]}, "needs a bound above 0"),
        ({"choice": []}, "nothing to choose from"),
    ],
)
def test_impossible_distributions_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(Distribution, values, source="test")


def test_impossible_conditions_are_refused() -> None:
    with pytest.raises(ConfigError, match="lora is not drawn before it; write lora above"):
        check_conditions(space_of({"lora.rank": LORA["lora.rank"], "lora": LORA["lora"]}))
    with pytest.raises(ConfigError, match="epochs can never be 9"):
        check_conditions(space_of({"epochs": {"integer": [1, 4]}, "seed": {"choice": [1], "when": {"epochs": [9]}}}))
    check_conditions(space_of(LORA))


def test_a_grid_is_finite() -> None:
    assert grid(space_of({"a": {"integer": [1, 3]}, "b": {"choice": ["x", [1]]}})) == {
        "a": [1, 2, 3],
        "b": ["x", "[1]"],
    }
    with pytest.raises(ConfigError, match="a: a grid needs choice or integer, found uniform"):
        grid(space_of({"a": {"uniform": [0, 1]}}))
    with pytest.raises(ConfigError, match="a grid has no conditions"):
        grid(space_of(LORA))


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"b": 1}, "b is not in the search space"),
        ({"a": 7}, "a: 7 cannot be drawn from integer"),
        ({"a": 1.5}, "1.5 cannot"),
        ({"a": True}, "True cannot"),
    ],
)
def test_points_outside_the_space_are_named(parameters: dict[str, Any], words: str) -> None:
    (found,) = misfits(space_of({"a": {"integer": [1, 3]}}), parameters)
    assert words in found
