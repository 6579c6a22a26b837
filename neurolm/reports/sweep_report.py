"""A sweep's report: one page of HTML that needs no network, no server and no colour; Markdown; JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from neurolm.reports.page import origin, write_page
from neurolm.reports.results import write_whole
from neurolm.reports.sections import Section, contents, plain
from neurolm.reports.sweep import WORDS
from neurolm.reports.sweep_analysis import best_so_far, comparable, front, goals, task_peaks
from neurolm.reports.sweep_charts import plural
from neurolm.reports.sweep_costs import costs, failures, looks
from neurolm.reports.sweep_sections import Material, sections
from neurolm.reports.sweep_trials import duration

SCHEMA_VERSION = 1


def write_report(path: Path, given: Material) -> None:
    """Write the page ``path`` and beside it the same as Markdown (.md) and JSON (.json)."""
    found = sections(given)
    write_whole(path.with_suffix(".json"), json.dumps(as_dict(given), indent=1, allow_nan=False) + "\n")
    write_whole(path.with_suffix(".md"), _markdown(given, found))
    shown = {
        "title": escape(given.sweep.title),
        "headline": "".join(f"<p{kind}>{text}</p>" for kind, text in _headline_html(given)),
        "facts": "".join(
            f"<div><dt>{escape(name)}</dt><dd>{escape(fact)}</dd></div>" for name, fact in _facts(given).items()
        ),
        "contents": contents(found),
        "sections": "\n".join(section.html() for section in found),
        "origin": origin(given.results),
    }
    write_page(path, "sweep.html", shown)


def as_dict(given: Material) -> dict[str, Any]:
    """The report as plain values; numbers that are none are null."""
    sweep, best = given.sweep, given.sweep.best
    ways, values = goals(sweep), comparable(sweep)
    found: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "is_finished": sweep.is_finished,
        "metric": sweep.metric,
        "mode": sweep.mode,
        "sampler": sweep.sampler,
        "pruner": sweep.pruner,
        "space": sweep.space,
        "budget": {"unit": sweep.budget_unit, "of_a_full_trial": sweep.budget},
        "best": {
            "trial": best.number,
            "value": best.best_value,
            "parameters": best.parameters,
            "config": "best.yaml" if given.best_config is not None else None,
            "command": given.command if given.best_config is not None else None,
        }
        if best
        else None,
        "confirmation": given.confirmation.as_dict() if given.confirmation else None,
        "test_results": given.results,
        "importances": sweep.importances,
        "best_so_far": best_so_far(sweep),
        "front": {
            "directions": ways,
            "trials": [{"trial": number, "values": values[number]} for number in front(values, ways)],
        },
        "task_peaks": {task: asdict(one) for task, one in task_peaks(sweep).items()},
        "costs": asdict(costs(sweep)),
        "pruning_looks": [asdict(one) for one in looks(sweep)],
        "failures": [
            {"cause": cause, "trials": [one.number for one in trials], "reasons": [one.reason for one in trials]}
            for cause, trials in failures(sweep).items()
        ],
        "trials": [asdict(trial) for trial in sweep.trials],
    }
    plain: dict[str, Any] = json.loads(json.dumps(found, default=str), parse_constant=lambda _: None)
    return plain


def _markdown(given: Material, found: Sequence[Section]) -> str:
    facts = "\n".join(plain(f"- {name}: {fact}") for name, fact in _facts(given).items())
    parts = [
        plain(f"# {given.sweep.title}"),
        *map(plain, _headline(given)),
        facts,
        *(text for section in found if (text := section.markdown())),
    ]
    return "\n\n".join([*parts, "The pictures are in the HTML report beside this file."]) + "\n"


def _headline(given: Material) -> list[str]:
    """The first sentences, without marks."""
    sweep, best = given.sweep, given.sweep.best
    lines = []
    if not sweep.is_finished:
        lines.append(f"The sweep has not ended: this is what it had written by {_now()}.")
    if best is None or best.best_value is None:
        reasons = "; the reasons are in the table of trials" if sweep.count("failed") else ""
        return [*lines, f"No trial of {len(sweep.trials)} finished{reasons}."]
    lines.append(f"{best.best_value:.3f} {sweep.metric}, reached by trial {best.number}.")
    one = given.confirmation
    if one is not None and one.best is not None:
        lines.append(f"On {one.best.number} fresh seeds: {_mean_sd(one.best.mean, one.best.sd)}. {one.verdict}")
    else:
        lines.append(
            f"The best of {len(sweep.trials)} trials on validation data is a flattering number: it was chosen for "
            "being the best. What the model is worth is the test result."
        )
    return lines


def _headline_html(given: Material) -> list[tuple[str, str]]:
    """The same with the first number large: attributes of a paragraph and what is in it."""
    best = given.sweep.best
    found: list[tuple[str, str]] = []
    for text in _headline(given):
        kind, shown = "", escape(text)
        if not given.sweep.is_finished and not found:
            kind = " class='running' role='status'"
        elif best is not None and best.best_value is not None and text.startswith(f"{best.best_value:.3f} "):
            kind, (value, _, rest) = " class='headline'", shown.partition(" ")
            link = f"<a href='#trial-{best.number}'>trial {best.number}</a>"
            shown = f"<strong>{value}</strong> {rest.removesuffix(f'trial {best.number}.')}{link}"
        found.append((kind, shown))
    return found


def _facts(given: Material) -> dict[str, str]:
    sweep, found = given.sweep, costs(given.sweep)
    states = ", ".join(f"{sweep.count(state)} {WORDS[state]}" for state in WORDS if sweep.count(state))
    facts = {"trials": f"{len(sweep.trials)} ({states})", "time of all trials": duration(found.total.seconds)}
    if found.total.gpu_hours:
        facts["GPU-hours"] = f"{found.total.gpu_hours:.3g}"
    elif found.total.cpu_hours is not None:
        facts["CPU-hours"] = f"{found.total.cpu_hours:.3g}"
    if found.saved_share is not None and sweep.count("pruned"):
        facts["spared by pruning"] = f"{found.saved_share:.0%} of the {plural(sweep.budget_unit)}"
    if (one := given.confirmation) is not None and one.paper is not None:
        facts[f"{one.reference}, fresh seeds"] = _mean_sd(one.paper.mean, one.paper.sd)
    if sweep.mode == "min":
        facts["objective"] = "the smaller the better"
    if len(sweep.directions) > 1:
        facts["objectives"] = ", ".join(f"{name} ({way})" for name, way in sweep.directions.items())
    return facts


def _mean_sd(mean: float, sd: float | None) -> str:
    return f"{mean:.3f}" if sd is None else f"{mean:.3f} ± {sd:.3f}"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
