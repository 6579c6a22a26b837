"""Many settings at once: who is drawn how, and that nothing is shaded where no trial is near."""

import re
from dataclasses import replace

from neurolm.reports.sweep_planes import (
    LEVELS,
    contour_levels,
    contours,
    level,
    parallel_coordinates,
    surface_trials,
)
from tests.reports.sweeps import SWEEP, TRIALS, large_sweep


def test_every_trial_has_a_line_and_the_best_is_drawn_last() -> None:
    sweep = large_sweep()
    drawn = re.findall(r'data-trial="(\d+)"', parallel_coordinates(sweep))
    assert sorted(map(int, drawn)) == [trial.number for trial in sweep.trials]
    assert sweep.best is not None and int(drawn[-1]) == sweep.best.number


def test_a_setting_that_a_trial_has_not_is_said_to_be_not_set() -> None:
    sweep = large_sweep()
    assert parallel_coordinates(sweep).count("not set") == 1  # below the one conditional setting
    flat = [replace(trial, parameters={"batch.size": trial.number}) for trial in sweep.trials]
    assert "not set" not in parallel_coordinates(replace(sweep, trials=flat))


def test_fifths_are_of_the_values() -> None:
    sweep = large_sweep()
    assert sweep.best is not None and level(sweep, sweep.best) == LEVELS - 1
    assert {level(sweep, trial) for trial in sweep.trials} == set(range(LEVELS))


def test_pairs_of_the_four_most_important_settings() -> None:
    pictures = contours(large_sweep())
    assert len(pictures) == 6
    assert all(re.search(r"shade-\d", one) for one in pictures)
    assert contours(replace(SWEEP, trials=TRIALS[:1])) == []


def test_shades_end_where_trials_do() -> None:
    corner = [
        replace(trial, parameters={"a": 0.1 * (trial.number % 3) / 3, "b": 0.1 * (trial.number % 2)})
        for trial in large_sweep().trials
    ]
    far = replace(corner[0], number=99, parameters={"a": 1.0, "b": 1.0}, state="complete")
    sweep = replace(large_sweep(), space={"a": "uniform", "b": "uniform"}, trials=[*corner, far], importances={})
    (picture,) = contours(sweep)
    shaded = sum(float(width) for width in re.findall(r'class="shade-\d"[^>]*? width="([\d.]+)"', picture))
    assert 0 < shaded < 0.5 * 22 * 242  # of 22 rows of cells, each as wide as the axis


def test_a_surface_is_of_finished_trials_where_there_are_enough() -> None:
    sweep = large_sweep()
    assert {trial.state for trial in surface_trials(sweep)} == {"complete"}
    few = [trial for trial in sweep.trials if trial.state != "complete"]
    assert surface_trials(replace(sweep, trials=few))


def test_the_last_shade_is_the_best() -> None:
    rising = contour_levels(large_sweep())
    assert len(rising) == LEVELS and rising == sorted(rising)
    assert contour_levels(large_sweep(mode="min")) == rising[::-1]
