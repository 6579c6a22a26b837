"""Values lie where they should: on lines, on logarithmic lines, or side by side."""

from dataclasses import replace

import pytest

from neurolm.reports.sweep import SweepRecord
from neurolm.reports.sweep_axes import Axis, value_text
from tests.reports.sweeps import SWEEP, TRIALS


def sweep_of(source: str, values: list[object]) -> SweepRecord:
    trials = [replace(TRIALS[0], number=number, parameters={"a.b": value}) for number, value in enumerate(values)]
    return replace(SWEEP, space={"a.b": source}, trials=[*trials, replace(TRIALS[0], number=99, parameters={})])


def test_a_logarithmic_axis() -> None:
    sweep = sweep_of("log_uniform [0.0001, 0.01]", [1e-4, 1e-3, 1e-2])
    axis = Axis.of(sweep, "a.b", 0, 100)
    assert axis is not None and axis.kinds is None
    low, middle, high = (axis.at(trial) for trial in sweep.trials[:3])
    assert middle == pytest.approx(50) and low is not None and high is not None and high - 50 == pytest.approx(50 - low)
    assert axis.at(sweep.trials[-1]) is None  # it has no such setting


@pytest.mark.parametrize(
    ("source", "values", "kinds"),
    [
        ("choice [128, 64, 32]", [128, 32, 64], ("32", "64", "128")),
        ("choice [0.0, 0.01, 0.1]", [0.1, 0.0, 0.01], ("0", "0.01", "0.1")),
        ("choice [true, false] if x is 1", [True, False], ("false", "true")),
        ("choice ['a', 3]", ["a", 3], ("3", "a")),
        ("choice [None, {}]", [{}, None], ("null", "{}")),
        ("", ["x", "y"], ("x", "y")),
    ],
)
def test_choices_stand_side_by_side_in_order(source: str, values: list[object], kinds: tuple[str, ...]) -> None:
    sweep = sweep_of(source, values)
    axis = Axis.of(sweep, "a.b", 0, 100)
    assert axis is not None and axis.kinds == kinds
    places = sorted(axis.at(trial) for trial in sweep.trials[: len(values)])
    assert places == pytest.approx([100 * (place + 0.5) / len(kinds) for place in range(len(kinds))])
    assert len(axis.cells(40)) == len(kinds) and axis.unit(places[1]) - axis.unit(places[0]) == pytest.approx(1)


def test_no_value_no_axis() -> None:
    assert Axis.of(sweep_of("uniform [0, 1]", []), "a.b", 0, 100) is None


def test_a_long_name_is_told_by_its_last_part() -> None:
    sweep = replace(SWEEP, trials=[replace(TRIALS[0], parameters={"a" * 30 + ".rate": 1.0, "a.rate": 1.0})])
    titles = [axis.title for name in sweep.trials[0].parameters if (axis := Axis.of(sweep, name, 0, 1)) is not None]
    assert titles == ["rate", "a.rate"]


@pytest.mark.parametrize(
    ("value", "said"), [(3e-4, "0.0003"), (16384, "16384"), (True, "true"), (None, "null"), ("a", "a"), ([1], "[1]")]
)
def test_values_read_as_people_write_them(value: object, said: str) -> None:
    assert value_text(value) == said
