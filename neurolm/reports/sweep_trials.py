"""The table of all trials, as plain texts and as a table of the page with marks, anchors and highlights."""

from collections.abc import Callable
from html import escape

from neurolm.reports.charts import compact
from neurolm.reports.sections import Table, score
from neurolm.reports.sweep import WORDS, SweepRecord, TrialRecord
from neurolm.reports.sweep_axes import setting_text
from neurolm.reports.sweep_charts import plural, symbol
from neurolm.reports.sweep_costs import spent


def trials_table(sweep: SweepRecord) -> Table:
    """All trials with what became of them."""
    names = _settings(sweep)
    head = ["trial", "state", *_columns(sweep), *names]
    rows = [
        [
            str(trial.number),
            _state(sweep, trial) + (f": {trial.reason}" if trial.reason else ""),
            *_cells(sweep, trial, names),
        ]
        for trial in sweep.trials
    ]
    return Table("Trials", head, rows, words=1)


def trials_html(sweep: SweepRecord) -> str:
    """The same, each row with its trial's mark and an anchor; the number is a button that brings the trial out."""
    names = _settings(sweep)
    head = "<th scope='col'>trial</th><th scope='col' class='words'>state</th>"
    head += "".join(f"<th scope='col'>{escape(name)}</th>" for name in _columns(sweep))
    head += "".join(f"<th scope='col'><code>{_breakable(name)}</code></th>" for name in names)
    body = "".join(_row(sweep, trial, names) for trial in sweep.trials)
    return (
        "<p class='note' id='how-to-pick'>Head cells sort. A trial's number marks it in every picture, and marks it no "
        "more when pressed again.</p>"
        "<div class='wide' role='region' aria-labelledby='trials' tabindex='0'><table id='all-trials'>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _settings(sweep: SweepRecord) -> list[str]:
    return list(dict.fromkeys([*sweep.space, *(name for trial in sweep.trials for name in trial.parameters)]))


def _columns(sweep: SweepRecord) -> dict[str, Callable[[TrialRecord], str]]:
    """Head of a column to what stands in it; those that are the same for all trials are left out."""
    columns: dict[str, Callable[[TrialRecord], str]] = {
        "best value": lambda trial: score(trial.best_value),
        plural(sweep.budget_unit): lambda trial: compact(spent(trial)),
        "time (s)": lambda trial: "-" if trial.seconds is None else f"{trial.seconds:.0f}",
    }
    if any(trial.gpu_hours for trial in sweep.trials):
        columns["GPU-hours"] = lambda trial: "-" if trial.gpu_hours is None else f"{trial.gpu_hours:.3g}"
    if len({trial.origin for trial in sweep.trials}) > 1:
        columns["from"] = lambda trial: trial.origin
    return columns


def _cells(sweep: SweepRecord, trial: TrialRecord, names: list[str]) -> list[str]:
    settings = (setting_text(trial.parameters, name) for name in names)
    return [*(cell(trial) for cell in _columns(sweep).values()), *settings]


def _state(sweep: SweepRecord, trial: TrialRecord) -> str:
    again = f", started {trial.starts} times" if trial.starts > 1 else ""
    return WORDS[trial.state] + (" (best)" if trial is sweep.best else "") + again


def _row(sweep: SweepRecord, trial: TrialRecord, names: list[str]) -> str:
    reason = f"<small>{escape(trial.reason)}</small>" if trial.reason else ""
    cells = "".join(f"<td>{escape(cell)}</td>" for cell in _cells(sweep, trial, names))
    best = " class='best'" if trial is sweep.best else ""
    return (
        f"<tr id='trial-{trial.number}'{best}><th scope='row'>{trial.number}</th>"
        f"<td class='words'>{symbol(trial.state)} {_state(sweep, trial)}{reason}</td>{cells}</tr>"
    )


def _breakable(name: str) -> str:
    """A dotted name that may be broken after its dots and underscores."""
    return escape(name).replace(".", ".<wbr>").replace("_", "_<wbr>")


def duration(seconds: float) -> str:
    """A time in hours and minutes, or minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
