"""What a sweep's report says of the search: history, curves, and what each setting had to do with the value."""

from neurolm.reports import sweep_charts, sweep_keys, sweep_planes
from neurolm.reports.charts import compact
from neurolm.reports.sections import Figure, Section, Table, score
from neurolm.reports.sweep import SweepRecord
from neurolm.reports.sweep_analysis import best_so_far, ranked_settings
from neurolm.reports.sweep_charts import plural


def sections(sweep: SweepRecord) -> list[Section]:
    """These sections, without those of which there is nothing."""
    makers = (_history, _curves, _importances, _parallel, _contours, _slices)
    return [one for make in makers if (one := make(sweep)) is not None]


def _history(sweep: SweepRecord) -> Section:
    so_far = best_so_far(sweep)
    rows = [
        [str(trial.number), score(trial.best_value), score(so_far.get(trial.number))]
        for trial in sweep.trials
        if trial.best_value is not None
    ]
    caption = (
        "The best value that each trial reached, in the order of the trials. Only finished trials count for the best "
        "so far."
    )
    table = Table("Numbers of the history", ["trial", "value", "best so far"], rows, is_open=False)
    return Section(
        "history", "Optimisation history",
        figures=[Figure([sweep_charts.history(sweep)], caption, sweep_keys.states(sweep))],
        tables=[table] if rows else [],
    )  # fmt: skip


def _curves(sweep: SweepRecord) -> Section:
    rows = [
        [str(trial.number), trial.state, "  ".join(f"{compact(at)}: {value:.4f}" for at, value in trial.points)]
        for trial in sweep.trials
        if trial.points
    ]
    unit = plural(sweep.budget_unit)
    caption = "Every trial; beside a curve, where there is room, the trial's number."
    figure = Figure([sweep_charts.learning_curves(sweep)], caption, sweep_keys.states(sweep))
    head = ["trial", "state", f"{unit}: value"]
    table = Table("Numbers of the learning curves", head, rows, words=2, is_open=False)
    return Section("curves", "Learning curves", figures=[figure], tables=[table] if rows else [])


def _importances(sweep: SweepRecord) -> Section:
    if not sweep.importances:
        return Section("importances", "Which setting mattered",
                       ["There were too few finished trials to say which setting mattered."])  # fmt: skip
    few = sweep.count("complete") < 20
    word = "With so few trials this is a hint, no finding." if few else "Shares of the differences between trials."
    rows = [[name, f"{value:.3f}"] for name, value in sorted(sweep.importances.items(), key=lambda item: -item[1])]
    return Section(
        "importances", "Which setting mattered", figures=[Figure([sweep_charts.importances(sweep)], word)],
        tables=[Table("Numbers of the importances", ["setting", "importance"], rows, is_open=False)],
    )  # fmt: skip


def _parallel(sweep: SweepRecord) -> Section | None:
    names = ranked_settings(sweep)
    if len(names) < 2:
        return None
    left_out = names[sweep_planes.MOST_AXES :]
    caption = "One line a trial. The numbers are in the table of trials."
    if left_out:
        caption += f" Left out, as the least important: {', '.join(left_out)}."
    figure = Figure([sweep_planes.parallel_coordinates(sweep)], caption, sweep_keys.fifths())
    return Section("parallel", "All settings at once", figures=[figure])


def _contours(sweep: SweepRecord) -> Section | None:
    names = ranked_settings(sweep)[: sweep_planes.MOST_CROSSED]
    if len(names) < 2:
        return None
    pictures = sweep_planes.contours(sweep)
    if not pictures:
        return Section("contours", "Pairs of settings", [f"Fewer than {sweep_planes.FEWEST} trials have a value."])
    trials = sweep_planes.surface_trials(sweep)
    which = "finished trials" if all(trial.state == "complete" for trial in trials) else "trials, for few have finished"
    caption = (
        f"Shades are the mean of the {which} nearby; blank is where there are none near. Settings: the "
        f"{len(names)} most important. Marks are trials; the numbers are in the table of trials."
    )
    return Section("contours", "Pairs of settings", figures=[Figure(pictures, caption, sweep_keys.shades(sweep))])


def _slices(sweep: SweepRecord) -> Section | None:
    pictures = sweep_charts.slices(sweep)
    caption = "A mark a trial, pruned ones with the value they had reached. The numbers are in the table of trials."
    if not pictures:
        return None
    return Section("slices", "Each setting against the value reached",
                   figures=[Figure(pictures, caption, sweep_keys.states(sweep))])  # fmt: skip
