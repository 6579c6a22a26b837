"""Many settings at once: parallel coordinates, and what pairs of settings together are worth."""

from itertools import combinations, groupby, pairwise

import numpy as np
from numpy.typing import NDArray

from neurolm.reports.charts import BOTTOM, LEFT, TOP, WIDTH, Scale, chart, line, number, picture, text, upright
from neurolm.reports.sweep import SweepRecord, TrialRecord
from neurolm.reports.sweep_analysis import ranked_settings, sign, with_value
from neurolm.reports.sweep_axes import Axis
from neurolm.reports.sweep_charts import NOTHING, kind, short_metric, traced, trial_mark

MOST_AXES = 8
MOST_CROSSED = 4
"""Settings of which every pair has a chart."""
LEVELS = 5
FEWEST = 5
"""Trials below which a surface would be invented."""
REACH = 0.16
"""How far a trial says something about its neighbourhood, as a share of an axis."""
GRID = 22


def parallel_coordinates(sweep: SweepRecord) -> str:
    """A line a trial through its settings to the value that it reached."""
    trials = with_value(sweep)
    names = ranked_settings(sweep)[:MOST_AXES]
    if not trials or not names:
        return NOTHING
    top, bottom, left, right = 40.0, 330.0, 60.0, WIDTH - 70.0
    places = np.linspace(left, right, len(names) + 1)
    axes = [axis for name in names if (axis := Axis.of(sweep, name, bottom, top)) is not None]
    values = Scale.around([trial.best_value or 0.0 for trial in trials], bottom, top)
    lacks_some = any(axis.at(trial) is None for axis in axes for trial in trials)
    lowest = bottom + (34.0 if lacks_some else 0.0)
    parts = [traced(trial, _thread(sweep, trial, axes, values, places, lowest)) for trial in trials]
    for x, axis in zip(places, axes, strict=False):
        section, dot, last = axis.name.rpartition(".")
        parts.append(_named_axis(x, top, bottom, section + dot, last))
        if any(axis.at(trial) is None for trial in trials):
            parts.append(text(x, lowest + 15, "not set", anchor="middle", kind="tick"))
        parts += [_tick(x, axis.scale(value), label) for value, label in axis.ticks(5)]
    parts.append(_named_axis(right, top, bottom, *_two_lines(short_metric(sweep.metric))))
    parts += [_tick(right, values(value), number(value)) for value in values.ticks(5)]
    return picture(
        "Parallel coordinates",
        f"a line for each of {len(trials)} trials through {', '.join(names)} to {sweep.metric}; the numbers are in the "
        "table of trials",
        WIDTH, lowest + 20, "".join(parts),
    )  # fmt: skip


def level(sweep: SweepRecord, trial: TrialRecord) -> int:
    """Which fifth of the trials a trial is in, by value: 0 is the worst."""
    ranked = [one.number for one in with_value(sweep)]
    return ranked.index(trial.number) * LEVELS // len(ranked)


def _thread(
    sweep: SweepRecord, trial: TrialRecord, axes: list[Axis], values: Scale, places: NDArray[np.float64], lowest: float
) -> str:
    points = [(float(x), lowest if (y := axis.at(trial)) is None else y) for x, axis in zip(places, axes, strict=False)]
    end = (float(places[-1]), values(trial.best_value or 0.0))
    style = f"thread step-{level(sweep, trial)} {kind(sweep, trial)}"
    return line([*points, end], style) + trial_mark(sweep, trial, *end)


def _named_axis(x: float, top: float, bottom: float, above: str, below: str) -> str:
    lines = [(height, words) for height, words in ((11, above), (26, below)) if words]
    return upright(x, top, bottom, "axis") + "".join(
        text(x, height, words, anchor="middle", kind="name") for height, words in lines
    )


def _two_lines(words: str) -> tuple[str, str]:
    """Words cut at the space nearest to their middle."""
    spaces = [place for place, letter in enumerate(words) if letter == " "]
    cut = min(spaces, key=lambda place: abs(place - len(words) / 2), default=0)
    return words[:cut], words[cut:].strip()


def _tick(x: float, y: float, label: str) -> str:
    short = f'<line class="axis" x1="{x - 4:.1f}" x2="{x:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return short + text(x - 7, y + 4, label, anchor="end", kind="tick label")


def contours(sweep: SweepRecord) -> list[str]:
    """For every pair of the most important settings, the value between the trials; blank where there are none near."""
    trials = surface_trials(sweep)
    if len(trials) < FEWEST:
        return []
    names = ranked_settings(sweep)[:MOST_CROSSED]
    return [_contour(sweep, one, other, trials) for one, other in combinations(names, 2)]


def surface_trials(sweep: SweepRecord) -> list[TrialRecord]:
    """The trials that make the surface: finished ones, for values of unequal training do not compare, if enough."""
    trials = with_value(sweep)
    finished = [trial for trial in trials if trial.state == "complete"]
    return finished if len(finished) >= FEWEST else trials


def contour_levels(sweep: SweepRecord) -> list[tuple[float, float]]:
    """From which value to which each shade goes, the worst first; of all contours the same."""
    values = [trial.best_value or 0.0 for trial in surface_trials(sweep)]
    bounds = np.linspace(min(values), max(values), LEVELS + 1).tolist()
    pairs = list(pairwise(bounds))
    return pairs if sweep.mode == "max" else pairs[::-1]


def _contour(sweep: SweepRecord, one: str, other: str, trials: list[TrialRecord]) -> str:
    width, height = 330, 250
    x_axis, y_axis = Axis.of(sweep, one, LEFT + 14, width - 12), Axis.of(sweep, other, height - BOTTOM, TOP)
    assert x_axis is not None and y_axis is not None, "ranked settings have values"
    placed = [
        (x, y, trial)
        for trial in with_value(sweep)
        if (x := x_axis.at(trial)) is not None and (y := y_axis.at(trial)) is not None
    ]
    kept = {trial.number for trial in trials}
    known = [
        (x_axis.unit(x), y_axis.unit(y), trial.best_value or 0.0) for x, y, trial in placed if trial.number in kept
    ]
    field = _field(sweep, x_axis, y_axis, known) if known else ""
    marks = "".join(traced(trial, trial_mark(sweep, trial, x, y)) for x, y, trial in placed)
    return chart(
        f"{one} and {other}",
        f"estimate of {sweep.metric} between {len(known)} trials, and {len(placed)} trials as marks",
        x_axis.scale, y_axis.scale, f'{field}<g class="over-field">{marks}</g>', x_title=x_axis.title,
        y_title=y_axis.title, width=width, height=height, x_ticks=x_axis.ticks(5), y_ticks=y_axis.ticks(5),
    )  # fmt: skip


def _field(sweep: SweepRecord, x: Axis, y: Axis, known: list[tuple[float, float, float]]) -> str:
    """Shaded cells: the mean of the trials near each, weighed by a normal curve of their distance."""
    columns, rows = x.cells(GRID), y.cells(GRID)
    at = np.array(known)
    middles_x = np.array([x.unit((start + end) / 2) for start, end in columns])
    middles_y = np.array([y.unit((start + end) / 2) for start, end in rows])
    squares = (middles_x[None, :, None] - at[:, 0]) ** 2 + (middles_y[:, None, None] - at[:, 1]) ** 2
    weights = np.exp(-squares / (2 * REACH**2))
    total = weights.sum(-1)
    estimate = (weights * at[:, 2]).sum(-1) / np.maximum(total, 1e-30)
    edges = [low for low, _ in sorted(contour_levels(sweep))][1:]
    levels = np.digitize(estimate, edges)
    if sign(sweep.mode) < 0:
        levels = LEVELS - 1 - levels
    levels = np.where(squares.min(-1) <= (1.5 * REACH) ** 2, levels, -1)
    parts = []
    for (top, bottom), shades in zip(rows, levels.tolist(), strict=True):
        for shade, cells in groupby(zip(shades, columns, strict=True), key=lambda cell: cell[0]):
            run = [column for _, column in cells]
            if shade >= 0:
                start, end = run[0][0], run[-1][1]
                parts.append(
                    f'<rect class="shade-{shade}" x="{start:.1f}" y="{min(top, bottom):.1f}" '
                    f'width="{end - start + 0.3:.1f}" height="{abs(bottom - top) + 0.3:.1f}"/>'
                )
    return f"<g>{''.join(parts)}</g>"
