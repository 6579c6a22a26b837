"""The pictures of a sweep: learning curves, history, importances, and each setting against the value reached."""

from html import escape
from itertools import pairwise

from neurolm.reports.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    chart,
    compact,
    line,
    mark,
    picture,
    stairs,
    text,
    with_room,
)
from neurolm.reports.sweep import WORDS, SweepRecord, TrialRecord
from neurolm.reports.sweep_analysis import best_so_far, sign, with_value
from neurolm.reports.sweep_axes import Axis

NOTHING = "<p>No trial reported a value.</p>"


def learning_curves(sweep: SweepRecord) -> str:
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
        parts.append(traced(trial, line(points, f"curve {kind(sweep, trial)}") + trial_mark(sweep, trial, *points[-1])))
    parts.append(_end_labels(sweep, trials, x, y))
    whole = sorted(set(budgets))
    ticks = whole if len(whole) <= 10 and _are_apart(x, whole) else x.ticks()
    return chart(
        "Learning curves",
        f"{sweep.metric} against {plural(sweep.budget_unit)}, one line for each of {len(trials)} trials",
        x, y, "".join(parts), x_title=plural(sweep.budget_unit), y_title=short_metric(sweep.metric),
        x_ticks=[(at, compact(at)) for at in ticks],
    )  # fmt: skip


def history(sweep: SweepRecord) -> str:
    """The value each trial reached in the order they were started, and the best so far."""
    trials = with_value(sweep)
    if not trials:
        return NOTHING
    x = Scale.around([trial.number for trial in trials], LEFT, WIDTH - RIGHT, margin=0.04)
    y = Scale.around([trial.best_value or 0.0 for trial in trials], HEIGHT - BOTTOM, TOP)
    so_far = [(x(number), y(value)) for number, value in best_so_far(sweep).items()]
    parts = [stairs(so_far, x.end, "curve so-far")]
    if so_far:
        parts.append(text(x.end + 6, so_far[-1][1] + 4, "best so far", kind="label strong"))
    for trial in trials:
        parts.append(traced(trial, trial_mark(sweep, trial, x(trial.number), y(trial.best_value or 0.0))))
    numbers = [trial.number for trial in trials]
    ticks = [(float(at), str(at)) for at in numbers] if len(numbers) <= 20 else None
    return chart(
        "Optimisation history",
        f"{sweep.metric} of each trial in order, and the best finished one so far",
        x, y, "".join(parts), x_title="trial", y_title=short_metric(sweep.metric), x_ticks=ticks,
    )  # fmt: skip


def importances(sweep: SweepRecord) -> str:
    """A bar for each setting, the most important first."""
    ranked = sorted(sweep.importances.items(), key=lambda item: -item[1])
    left, row = 7.4 * max(len(name) for name, _ in ranked) + 14, 28
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


def slices(sweep: SweepRecord) -> list[str]:
    """For each setting searched, a chart of its values against the value reached."""
    return [_slice(sweep, name) for name in sweep.space] if with_value(sweep) else []


def _slice(sweep: SweepRecord, name: str) -> str:
    width, height = 330, 230
    trials = [trial for trial in with_value(sweep) if name in trial.parameters]
    axis = Axis.of(sweep, name, LEFT, width - 16)
    if axis is None or not trials:
        return f"<p>No trial had <code>{escape(name)}</code>.</p>"
    y = Scale.around([trial.best_value or 0.0 for trial in trials], height - BOTTOM, TOP)
    marks = (
        traced(trial, trial_mark(sweep, trial, axis.at(trial) or 0.0, y(trial.best_value or 0.0))) for trial in trials
    )
    return chart(
        name, f"{sweep.metric} against {name}, a mark for each of {len(trials)} trials", axis.scale, y, "".join(marks),
        x_title=axis.title, y_title="", width=width,
        height=height, x_ticks=axis.ticks(5),
    )  # fmt: skip


def symbol(state: str) -> str:
    """The mark of a state, small enough to stand in text."""
    return f"<svg class='symbol' aria-hidden='true' viewBox='0 0 12 12'>{mark(6, 6, state, size=4)}</svg>"


def traced(trial: TrialRecord, drawn: str) -> str:
    """What is drawn of a trial, so that the page can bring it out."""
    return f'<g data-trial="{trial.number}">{drawn}</g>'


def trial_mark(sweep: SweepRecord, trial: TrialRecord, x: float, y: float, hint: str = "") -> str:
    """A trial's mark with its hint for the mouse."""
    value = "no value" if trial.best_value is None else f"{trial.best_value:.4f}"
    return mark(x, y, kind(sweep, trial), hint or f"trial {trial.number}, {WORDS[trial.state]}: {value}")


def kind(sweep: SweepRecord, trial: TrialRecord) -> str:
    """The style classes of a trial's line and mark."""
    return f"{trial.state} best" if trial is sweep.best else trial.state


def short_metric(metric: str) -> str:
    """The part of the metric's name before its first comma, for an axis."""
    return metric.partition(",")[0]


def plural(unit: str) -> str:
    """A unit of the budget, for several of it."""
    return unit if unit.endswith("s") else f"{unit}s"


def _are_apart(x: Scale, values: list[float]) -> bool:
    places = [x(value) for value in values]
    return all(after - before >= 40 for before, after in pairwise(places))


def _end_labels(sweep: SweepRecord, trials: list[TrialRecord], x: Scale, y: Scale) -> str:
    """Trial numbers beside the ends of the curves, the better trials' first where there is not room for all."""
    ranked = sorted(trials, key=lambda trial: (trial is not sweep.best, -sign(sweep.mode) * trial.points[-1][1]))
    parts = []
    for end in sorted({trial.points[-1][0] for trial in ranked}):
        here = [trial for trial in ranked if trial.points[-1][0] == end]
        for trial, height in zip(here, with_room([y(trial.points[-1][1]) for trial in here], 13), strict=True):
            if height is not None:
                is_best = trial is sweep.best
                word = f"trial {trial.number} (best)" if is_best else f"{trial.number}"
                parts.append(text(x(end) + 9, height + 4, word, kind="label strong" if is_best else "label"))
    return "".join(parts)
