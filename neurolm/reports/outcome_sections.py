"""What a sweep's report says of its outcome: trade-offs, peaks of tasks, costs, failures, every trial."""

from statistics import median

from neurolm.reports import sweep_goals, sweep_keys
from neurolm.reports.charts import compact, number
from neurolm.reports.sections import Figure, Section, Table, score, signed
from neurolm.reports.sweep import WORDS, SweepRecord
from neurolm.reports.sweep_analysis import comparable, front, goals, task_peaks
from neurolm.reports.sweep_charts import plural
from neurolm.reports.sweep_costs import costs, failures, looks, spent
from neurolm.reports.sweep_trials import duration, trials_html, trials_table


def sections(sweep: SweepRecord) -> list[Section]:
    """These sections, without those of which there is nothing."""
    makers = (_front, _peaks, _costs, _failures, _trials)
    return [one for make in makers if (one := make(sweep)) is not None]


def _front(sweep: SweepRecord) -> Section | None:
    ways, values = goals(sweep), comparable(sweep)
    if not ways:
        return None
    if len(ways) == 1:
        name = next(iter(ways))
        return Section(
            "front", "Trade-offs between tasks", [f"There is one task, {name}: nothing to trade it against."]
        )
    if not values:
        return Section("front", "Trade-offs between tasks", ["No finished trial has a value of every task."])
    kept = front(values, ways)
    rows = [[str(one), *(f"{values[one][name]:.4f}" for name in ways)] for one in kept]
    title = "Trade-offs between objectives" if len(sweep.directions) > 1 else "Trade-offs between tasks"
    words = [
        f"On the Pareto front of {', '.join(ways)}: {len(kept)} of {len(values)} finished trials. No other trial is at "
        "least as good as one of these in all and better in one."
    ]
    caption = (
        "Rings: trials on the front of all; the line: the front of the two. Values are of the weights that were kept."
    )
    figure = Figure(sweep_goals.fronts(sweep), caption, sweep_keys.states(sweep))
    return Section(
        "front", title, words, figures=[figure], tables=[Table("Trials on the front", ["trial", *ways], rows)]
    )


def _peaks(sweep: SweepRecord) -> Section | None:
    found = task_peaks(sweep)
    if not found:
        return None
    rows = [
        [name,
         compact(one.best.budget) if one.best else "-",
         f"{one.best.value:.4f}" if one.best else "-",
         score(one.best.at_chosen) if one.best else "-",
         signed(one.best.at_chosen, one.best.value) if one.best else "-",
         compact(one.median) if one.median is not None else "-",
         f"{compact(min(one.budgets.values()))} to {compact(max(one.budgets.values()))}" if one.budgets else "-"]
        for name, one in found.items()
    ]  # fmt: skip
    head = [
        "task",
        "best trial: peak after",
        "value there",
        "value kept",
        "kept - peak",
        "finished trials: median peak",
        "range",
    ]
    unit = plural(sweep.budget_unit)
    words = [
        f"Tasks are best at different times; one checkpoint serves them all. Times are {unit}. Kept are the weights "
        "that the trial's value is of."
    ]
    pictures = [
        Figure([one], caption)
        for one, caption in (
            (
                sweep_goals.tasks_of_the_best(sweep),
                "Rings: where each task is best; dashed: where the weights were kept.",
            ),
            (sweep_goals.peak_times(sweep), "Each finished trial's best time; the upright is the median."),
        )
        if one
    ]
    return Section("peaks", "When each task is best", words, figures=pictures, tables=[Table("Peaks", head, rows)])


def _costs(sweep: SweepRecord) -> Section:
    found, unit = costs(sweep), plural(sweep.budget_unit)
    with_gpus = bool(found.total.gpu_hours)
    rows = []
    for name, cost in [*found.by_state.items(), ("all", found.total)]:
        trials = [trial for trial in sweep.trials if name in (trial.state, "all")]
        values = [trial.best_value for trial in trials if trial.best_value is not None]
        firsts = [trial.points[0][1] for trial in trials if trial.points]
        rows.append(
            [
                WORDS.get(name, name),
                str(cost.trials),
                compact(cost.budget),
                duration(cost.seconds),
                _hours(cost.cpu_hours),
            ]
            + ([_hours(cost.gpu_hours)] if with_gpus else [])
            + [_range((min(values), max(values)) if values else None)]
            + [f"{median(firsts):.3f}" if firsts else "-"]
        )
    head = [
        "trials",
        "number",
        unit,
        "time",
        "CPU-hours",
        *(["GPU-hours"] if with_gpus else []),
        "best values",
        "median at first report",
    ]
    words = []
    if found.saved_share is not None and sweep.count("pruned"):
        spared = (
            f"Pruning spared {found.saved_share:.0%} of the training that all trials to their ends would have taken"
        )
        spared += f": {compact(found.saved_budget)} {unit}, about {duration(found.saved_seconds)} at their own pace"
        if found.saved_gpu_hours:
            spared += f", {found.saved_gpu_hours:.3g} GPU-hours"
        words.append(f"{spared}.")
    if found.lost_seconds:
        words.append(f"Failed trials took {duration(found.lost_seconds)}.")
    if not with_gpus:
        words.append("No GPU was used, or its hours are not on record.")
    tables = [Table("What trials took", head, rows)]
    if seen := looks(sweep):
        head = [f"pruning looked at {unit}", "went on", "their values then", "stopped", "their values then"]
        rows = [
            [
                compact(one.budget),
                str(one.went_on),
                _range(one.went_on_range),
                str(one.stopped),
                _range(one.stopped_range),
            ]
            for one in seen
        ]
        tables.append(Table("Where pruning looked", head, rows))
    picture = sweep_goals.where_training_went(sweep, found)
    return Section("costs", "Pruned and finished, time and hours", words,
                   figures=[Figure([picture], f"Shares of {unit}.")] if picture else [],
                   tables=tables)  # fmt: skip


def _failures(sweep: SweepRecord) -> Section:
    found = failures(sweep)
    if not found:
        return Section("failures", "Failures", ["No trial failed."])
    rows = [
        [cause, str(len(trials)), ", ".join(str(trial.number) for trial in trials),
         ", ".join(compact(spent(trial)) for trial in trials), trials[0].reason or "-"]
        for cause, trials in found.items()
    ]  # fmt: skip
    head = ["cause", "trials", "which", f"after {plural(sweep.budget_unit)}", "first one's words"]
    return Section("failures", "Failures", tables=[Table("Failures by cause", head, rows, words=4)])


def _trials(sweep: SweepRecord) -> Section:
    return Section("trials", "Trials", html_tables=trials_html(sweep), tables=[trials_table(sweep)])


def _range(ends: tuple[float, float] | None) -> str:
    return "-" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"


def _hours(value: float | None) -> str:
    return "-" if value is None else number(round(value, 3))
