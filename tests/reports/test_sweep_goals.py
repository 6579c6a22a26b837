"""Trade-offs, peaks, shares of training and seeds as pictures."""

import re
from dataclasses import replace
from itertools import pairwise

import pytest

from neurolm.reports.sweep_analysis import comparable, front, goals
from neurolm.reports.sweep_costs import costs
from neurolm.reports.sweep_goals import fronts, peak_times, seeds, tasks_of_the_best, where_training_went
from tests.reports.sweeps import SWEEP, TRIALS, confirmed, large_sweep


def test_trials_on_the_front_have_a_ring() -> None:
    sweep = large_sweep()
    (picture,) = fronts(sweep)
    assert picture.count('class="ring"') == len(front(comparable(sweep), goals(sweep)))
    assert picture.count("data-trial") == sweep.count("complete")


@pytest.mark.parametrize(("tasks", "pairs"), [(("a",), 0), (("a", "b", "c"), 3), (("a", "b", "c", "d", "e"), 6)])
def test_every_pair_of_up_to_four_tasks(tasks: tuple[str, ...], pairs: int) -> None:
    assert len(fronts(large_sweep(tasks=tasks))) == pairs


@pytest.mark.parametrize(("ways", "corners"), [(("max", "max"), 5), (("min", "max"), 1)])
def test_the_outline_is_a_flight_of_stairs(ways: tuple[str, str], corners: int) -> None:
    trials = [
        replace(TRIALS[0], number=number, objectives={"a": a, "b": b})
        for number, (a, b) in enumerate([(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)])
    ]
    sweep = replace(SWEEP, trials=trials, directions=dict(zip("ab", ways, strict=True)))
    (picture,) = fronts(sweep)
    points = re.search(r'class="curve so-far" points="([^"]*)"', picture)
    assert points is not None
    places = [tuple(map(float, pair.split(","))) for pair in points.group(1).split()]
    assert all(x == nx or y == ny for (x, y), (nx, ny) in pairwise(places))
    assert len(places) == corners  # where small a is good, the first trial beats all


def test_each_task_has_a_line_and_a_ring_at_its_peak() -> None:
    picture = tasks_of_the_best(large_sweep(tasks=("a", "b", "c")))
    assert picture.count('class="curve class-') == 3 and picture.count('class="ring"') == 3 and ">kept<" in picture
    assert tasks_of_the_best(SWEEP) == "" and peak_times(SWEEP) == ""


def test_peaks_of_all_finished_trials_are_marked() -> None:
    sweep = large_sweep()
    assert peak_times(sweep).count("data-trial") == 2 * sweep.count("complete")


def test_the_bar_is_whole() -> None:
    picture = where_training_went(large_sweep(), costs(large_sweep()))
    widths = [float(width) for width in re.findall(r'class="portion[^>]*? width="([\d.]+)"', picture)]
    assert sum(widths) == pytest.approx(898, abs=0.5) and len(widths) == 4
    assert where_training_went(replace(SWEEP, trials=[]), costs(replace(SWEEP, trials=[]))) == ""


def test_seeds_of_both_settings_are_joined() -> None:
    picture = seeds(confirmed([0.6, 0.7, None], [0.5, 0.6, 0.7]))
    assert picture.count('class="pair"') == 2 and picture.count('class="mark complete"') == 5
    assert seeds(confirmed([None], [None])) == ""
    assert 'class="pair"' not in seeds(confirmed([0.6], [], is_same=True))
