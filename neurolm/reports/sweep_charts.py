"""The pictures of a sweep: learning curves, history, importances, and each setting against the value reached."""

from html import escape
from typing import TYPE_CHECKING

from neurolm.reports.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    chart,
    line,
    mark,
    number,
    picture,
    stairs,
    text,
    with_room,
)

if TYPE_CHECKING:
    from neurolm.reports.sweep import SweepRecord, TrialRecord

NOTHING = "<p>No trial reported a value.</p>"


def learning_curves(sweep: "SweepRecord") -> str:
    """Value against budget spent, a line a trial; its style says how the trial ended."""
    trials = [trial for trial in sweep.trials if trial.points]
    if not trials:
        return NOTHING
    budgets = [at for trial in trials for at, _ in trial.points] + ([float(sweep.budget)] if sweep.budget else [])
    x = Scale.around(budgets, LEFT, WIDTH - RIGHT, margin=0.04)
    y = Scale.around([value for trial in trials for _, value in trial.points], HEIGHT - BOTTOM, TOP)
    parts = []
    ordered = sorted(
        trials, key=lambda trial: (trial is sweep.best, trial.state == "complete")
    )  # the best is drawn last
    for trial in ordered:
        points = [(x(at), y(value)) for at, value in trial.points]
        parts.append(f"<g><title>{escape(_hint(sweep, trial))}</title>{line(points, f'curve {_kind(sweep, trial)}')}")
        parts.append(f"{mark(*points[-1], _kind(sweep, trial))}</g>")
    parts.append(_end_labels(sweep, trials, x, y))
    whole = sorted(set(budgets))
    ticks = [(at, number(at)) for at in whole] if len(whole) <= 10 else None
    return chart(
        "Learning curves",
        f"{sweep.metric} against {sweep.budget_unit}, one line for each of {len(trials)} trials; "
        f"the values at the ends are in the table of trials",
        x, y, "".join(parts), x_title=sweep.budget_unit, y_title=_short(sweep.metric), x_ticks=ticks,
    )  # fmt: skip


def history(sweep: "SweepRecord") -> str:
    """The value each trial reached in the order they were started, and the best so far."""
    trials = [trial for trial in sweep.trials if trial.best_value is not None]
    if not trials:
        return NOTHING
    x = Scale.around([trial.number for trial in trials], LEFT, WIDTH - RIGHT, margin=0.04)
    y = Scale.around([trial.best_value or 0.0 for trial in trials], HEIGHT - BOTTOM, TOP)
    keep = max if sweep.mode == "max" else min
    so_far: list[tuple[float, float]] = []
    best = None
    for trial in trials:
        if trial.state == "complete":
            value = trial.best_value or 0.0
            best = value if best is None else keep(best, value)
            so_far.append((x(trial.number), y(best)))
    parts = [stairs(so_far, x.end, "curve so-far")]
    if so_far:
        parts.append(text(x.end + 6, so_far[-1][1] + 4, "best so far", kind="label strong"))
    for trial in trials:
        parts.append(mark(x(trial.number), y(trial.best_value or 0.0), _kind(sweep, trial), _hint(sweep, trial)))
    numbers = [trial.number for trial in trials]
    ticks = [(float(at), str(at)) for at in numbers] if len(numbers) <= 20 else None
    return chart(
        "Optimisation history",
        f"{sweep.metric} of each trial in order, and the best finished one so far",
        x, y, "".join(parts), x_title="trial", y_title=_short(sweep.metric), x_ticks=ticks,
    )  # fmt: skip


def importances(sweep: "SweepRecord") -> str:
    """A bar for each setting, the most important first."""
    ranked = sorted(sweep.importances.items(), key=lambda item: -item[1])
    left, row = 8.2 * max(len(name) for name, _ in ranked) + 14, 28
    largest = max(max(value for _, value in ranked), 1e-9)
    parts = []
    for index, (name, value) in enumerate(ranked):
        top = 4 + index * row
        length = max(1.5, value / largest * (WIDTH - left - 60))
        parts.append(text(left - 10, top + 16, name, anchor="end", kind="code"))
        parts.append(f'<rect class="bar" x="{left:.1f}" y="{top}" width="{length:.1f}" height="{row - 8}"/>')
        parts.append(text(left + length + 8, top + 16, f"{value:.2f}"))
    said = ", ".join(f"{name} {value:.2f}" for name, value in ranked)
    return picture("Importance of the settings", said, WIDTH, 8 + row * len(ranked), "".join(parts))


def slices(sweep: "SweepRecord") -> list[str]:
    """For each setting searched, a chart of its values against the value reached."""
    trials = [trial for trial in sweep.trials if trial.best_value is not None]
    return [_slice(sweep, name, trials) for name in sweep.space] if trials else []


def _slice(sweep: "SweepRecord", name: str, trials: "list[TrialRecord]") -> str:
    width, height = 330, 220
    trials = [trial for trial in trials if name in trial.parameters]
    values = [trial.parameters[name] for trial in trials]
    y = Scale.around([trial.best_value or 0.0 for trial in trials], height - BOTTOM, TOP)
    ticks = None
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        is_log = "log" in sweep.space[name] and min(values, default=0) > 0
        x = Scale.around([float(value) for value in values], LEFT, width - 16, is_log=is_log)
        places = [float(value) for value in values]
        if all(isinstance(value, int) for value in values) and len(set(values)) <= 8:
            ticks = [(float(value), str(value)) for value in sorted(set(values))]
    else:
        kinds = sorted({str(value) for value in values})
        x = Scale.around([-0.4, len(kinds) - 0.6], LEFT, width - 16, margin=0.0)
        places = [float(kinds.index(str(value))) for value in values]
        ticks = [(float(index), kind) for index, kind in enumerate(kinds)]
    marks = (
        mark(x(place), y(trial.best_value or 0.0), _kind(sweep, trial), _hint(sweep, trial))
        for place, trial in sorted(zip(places, trials, strict=True), key=lambda pair: pair[1] is sweep.best)
    )
    return chart(
        name, f"{sweep.metric} against {name}, a mark for each of {len(trials)} trials", x, y, "".join(marks),
        x_title=name, y_title="", width=width, height=height, x_ticks=ticks,
    )  # fmt: skip


def symbol(state: str) -> str:
    """The mark of a state, small enough to stand in text."""
    return f"<svg class='symbol' aria-hidden='true' viewBox='0 0 12 12'>{mark(6, 6, state, size=4)}</svg>"


def _end_labels(sweep: "SweepRecord", trials: "list[TrialRecord]", x: Scale, y: Scale) -> str:
    """Trial numbers beside the ends of the curves, the better trials' first where there is not room for all."""
    sign = 1 if sweep.mode == "max" else -1
    ranked = sorted(trials, key=lambda trial: (trial is not sweep.best, -sign * trial.points[-1][1]))
    parts = []
    for end in sorted({trial.points[-1][0] for trial in ranked}):
        here = [trial for trial in ranked if trial.points[-1][0] == end]
        for trial, height in zip(here, with_room([y(trial.points[-1][1]) for trial in here], 13), strict=True):
            if height is not None:
                is_best = trial is sweep.best
                word = f"trial {trial.number} (best)" if is_best else f"{trial.number}"
                parts.append(text(x(end) + 9, height + 4, word, kind="label strong" if is_best else "label"))
    return "".join(parts)


def _kind(sweep: "SweepRecord", trial: "TrialRecord") -> str:
    return f"{trial.state} best" if trial is sweep.best else trial.state


def _hint(sweep: "SweepRecord", trial: "TrialRecord") -> str:
    """What the mouse shows."""
    value = "no value" if trial.best_value is None else f"{trial.best_value:.4f}"
    return f"trial {trial.number}, {trial.state}: {value}"


def _short(metric: str) -> str:
    """The part of the metric's name before its first comma, for an axis."""
    return metric.partition(",")[0]
