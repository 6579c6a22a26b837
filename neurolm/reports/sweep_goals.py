"""What a sweep trades: tasks or objectives against each other, training against time, luck against seeds."""

from collections import Counter
from collections.abc import Sequence
from html import escape
from itertools import combinations

from neurolm.reports.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    MARK,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    chart,
    compact,
    foot,
    line,
    mark,
    picture,
    text,
    upright,
    with_room,
)
from neurolm.reports.confirmation import Confirmation, SeedRun
from neurolm.reports.sweep import WORDS, SweepRecord
from neurolm.reports.sweep_analysis import chosen_at, comparable, front, goals, peak, sign, task_names, task_peaks
from neurolm.reports.sweep_charts import plural, short_metric, traced, trial_mark
from neurolm.reports.sweep_costs import Costs

MOST_GOALS = 4
"""Goals of which every pair has a chart."""
NUM_STYLES = 6


def fronts(sweep: SweepRecord) -> list[str]:
    """For every pair of goals, the finished trials and the line of those that no other beats in both."""
    values, names = comparable(sweep), list(goals(sweep))[:MOST_GOALS]
    return [_front(sweep, one, other) for one, other in combinations(names, 2)] if values else []


def _front(sweep: SweepRecord, one: str, other: str) -> str:
    width, height = 430, 330
    ways, values = goals(sweep), comparable(sweep)
    x = Scale.around([found[one] for found in values.values()], LEFT, width - 40)
    y = Scale.around([found[other] for found in values.values()], height - BOTTOM, TOP)
    pair = {one: ways[one], other: ways[other]}
    edge = [values[number] for number in front(values, pair)]
    whole = front(values, ways)
    corners = _corners([(x(found[one]), y(found[other])) for found in edge], sign(ways[one]))
    parts = [line(corners, "curve so-far")]
    by_number = {trial.number: trial for trial in sweep.trials}
    for number, found in sorted(values.items(), key=lambda item: by_number[item[0]] is sweep.best):
        trial = by_number[number]
        place = x(found[one]), y(found[other])
        hint = f"trial {number}: {one} {found[one]:.4f}, {other} {found[other]:.4f}"
        ring = (
            f'<circle class="ring" cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="{MARK + 4}"/>' if number in whole else ""
        )
        label = text(place[0] + 10, place[1] - 7, str(number)) if number in whole else ""
        parts.append(traced(trial, ring + trial_mark(sweep, trial, *place, hint) + label))
    return chart(
        f"{one} against {other}",
        f"{len(values)} finished trials, {len(edge)} of them beaten by no other in both",
        x, y, "".join(parts), x_title=_way(one, ways), y_title=_way(other, ways), width=width, height=height,
    )  # fmt: skip


def _corners(points: Sequence[tuple[float, float]], way: int) -> list[tuple[float, float]]:
    """The outline of what a front dominates: from point to point it keeps the worse of both."""
    corners: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: way * point[0]):
        if corners:
            corners.append((corners[-1][0], y))
        corners.append((x, y))
    return corners


def _way(name: str, ways: dict[str, str]) -> str:
    return name if ways[name] == "max" else f"{name} (small is good)"


def tasks_of_the_best(sweep: SweepRecord) -> str:
    """The best trial task by task: a line each, a ring at its peak, and where the weights were kept."""
    best = sweep.best
    names = [name for name in task_names(sweep) if best and best.task_curves.get(name)]
    if best is None or not names:
        return ""
    curves = {name: best.task_curves[name] for name in names}
    x = Scale.around([at for curve in curves.values() for at, _ in curve], LEFT, WIDTH - RIGHT - 60, margin=0.04)
    y = Scale.around([value for curve in curves.values() for _, value in curve], HEIGHT - BOTTOM, TOP)
    parts = []
    if (kept := chosen_at(sweep, best)) is not None:
        at = x(kept)
        parts.append(upright(at, y.start, y.end, "limit"))
        parts.append(text(at, y.end - 3, "kept", anchor="middle"))
    ends = with_room([y(curve[-1][1]) for curve in curves.values()], 13)
    for place, (name, end) in enumerate(zip(names, ends, strict=True)):
        points = [(x(at), y(value)) for at, value in curves[name]]
        parts.append(line(points, f"curve class-{place % NUM_STYLES}"))
        top = peak(sweep, best, name)
        if top is not None:
            parts.append(f'<circle class="ring" cx="{x(top.budget):.1f}" cy="{y(top.value):.1f}" r="6"/>')
        if end is not None:
            parts.append(text(points[-1][0] + 9, end + 4, name))
    return chart(
        "Best trial, task by task", f"{len(names)} tasks against {plural(sweep.budget_unit)}, rings at their peaks",
        x, y, "".join(parts), x_title=plural(sweep.budget_unit), y_title=short_metric(sweep.metric),
        x_ticks=[(value, compact(value)) for value in x.ticks()],
    )  # fmt: skip


def peak_times(sweep: SweepRecord) -> str:
    """A row a task: after how much training each finished trial was best at it."""
    found = {name: one for name, one in task_peaks(sweep).items() if one.budgets}
    if not found:
        return ""
    left, row = 7.4 * max(len(name) for name in found) + 24, 34.0
    x = Scale.around(
        [0.0, *(at for one in found.values() for at in one.budgets.values())], left, WIDTH - 30, margin=0.03
    )
    by_number = {trial.number: trial for trial in sweep.trials}
    bottom = 10 + row * len(found)
    parts = []
    for place, (name, one) in enumerate(found.items()):
        middle = 10 + row * (place + 0.5)
        parts.append(text(left - 12, middle + 4, name, anchor="end"))
        parts.append(f'<line class="grid" x1="{left:.1f}" x2="{x.end:.1f}" y1="{middle:.1f}" y2="{middle:.1f}"/>')
        beside = Counter(one.budgets.values())
        passed: Counter[float] = Counter()
        for number, at in one.budgets.items():
            shift = (passed[at] - (beside[at] - 1) / 2) * min(6.0, 26.0 / beside[at])
            passed[at] += 1
            trial = by_number[number]
            hint = f"trial {number}: {name} best after {compact(at)} {plural(sweep.budget_unit)}"
            parts.append(traced(trial, trial_mark(sweep, trial, x(at), middle + shift, hint)))
        if one.median is not None:
            at = x(one.median)
            parts.append(upright(at, middle - 15, middle + 15, "median"))
    parts.append(foot(x, bottom, plural(sweep.budget_unit), [(value, compact(value)) for value in x.ticks()]))
    said = "; ".join(f"{name}: median {compact(one.median or 0.0)}" for name, one in found.items())
    return picture("When each task is best", said, WIDTH, bottom + 44, "".join(parts))


def where_training_went(sweep: SweepRecord, found: Costs) -> str:
    """One bar: training of finished, pruned, failed and running trials, and what pruning spared."""
    shares = {state: cost.budget for state, cost in found.by_state.items() if cost.budget}
    if found.saved_budget:
        shares["spared"] = found.saved_budget
    total = sum(shares.values())
    if not total:
        return ""
    parts, start, width, height = [], 0.0, WIDTH - 2.0, 30.0
    for name, amount in shares.items():
        length = amount / total * width
        word = WORDS.get(name, "spared by pruning")
        parts.append(
            f'<rect class="portion {name}" x="{1 + start:.1f}" y="26" width="{length:.1f}" height="{height}">'
            f"<title>{escape(word)}: {amount / total:.0%}</title></rect>"
        )
        label = f"{word} {amount / total:.0%}"
        if length >= 7 * len(label):
            parts.append(text(start + 5, 18, label))
        start += length
    said = ", ".join(f"{WORDS.get(name, 'spared by pruning')} {amount / total:.0%}" for name, amount in shares.items())
    return picture("Where the training went", said, WIDTH, 60, "".join(parts))


def seeds(found: Confirmation) -> str:
    """The best setting and the reference on every seed, pairs joined, with their means."""
    rows = {"best setting": found.best_runs, found.reference: found.reference_runs}
    rows = {name: runs for name, runs in rows.items() if any(run.score is not None for run in runs)}
    if not rows:
        return ""
    left = 7.0 * max(len(name) for name in [*rows, "in the sweep"]) + 20
    scores = [run.score for runs in rows.values() for run in runs if run.score is not None]
    x = Scale.around([*scores, found.sweep_score], left, WIDTH - 40)
    heights = {name: 58.0 + 62.0 * place for place, name in enumerate(rows)}
    bottom = 58.0 + 62.0 * len(rows)
    parts = [_pairs(found, x, list(heights.values()))] if len(rows) == 2 else []
    for name, runs in rows.items():
        parts += [text(left - 12, heights[name] + 4, name, anchor="end", kind="label"), _row(runs, x, heights[name])]
    at = x(found.sweep_score)
    parts.append(upright(at, 16, bottom - 22, "limit"))
    parts.append(
        text(at, 11, f"best trial in the sweep {found.sweep_score:.3f}", anchor="middle" if at < WIDTH - 130 else "end")
    )
    parts.append(foot(x, bottom - 22, short_metric(found.metric)))
    return picture("Fresh seeds", found.verdict, WIDTH, bottom + 22, "".join(parts))


def _pairs(found: Confirmation, x: Scale, heights: list[float]) -> str:
    others = {run.seed: run.score for run in found.reference_runs}
    return "".join(
        line([(x(run.score), heights[0]), (x(other), heights[1])], "pair")
        for run in found.best_runs
        if run.score is not None and (other := others.get(run.seed)) is not None
    )


def _row(runs: list[SeedRun], x: Scale, height: float) -> str:
    scored = [(run, run.score) for run in runs if run.score is not None]
    mean = sum(score for _, score in scored) / len(scored)
    rule = upright(x(mean), height - 14, height + 14, "median")
    said = text(x(mean), height - 18, f"mean {mean:.3f}", anchor="middle", kind="label strong")
    return (
        rule
        + "".join(mark(x(score), height, "complete", f"seed {run.seed}: {score:.4f}") for run, score in scored)
        + said
    )
