"""What a sweep's report says, section by section."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neurolm.reports import outcome_sections, search_sections
from neurolm.reports.confirmation import Confirmation
from neurolm.reports.confirmation_section import confirmation
from neurolm.reports.page import results_section
from neurolm.reports.results import results_table
from neurolm.reports.sections import Section, Table
from neurolm.reports.sweep import SweepRecord
from neurolm.reports.sweep_axes import setting_text


@dataclass(frozen=True)
class Material:
    """All that a report is made from."""

    sweep: SweepRecord
    command: str
    """What trains the best config again."""
    best_config: str | None = None
    """The text of ``best.yaml``; None while there is none."""
    confirmation: Confirmation | None = None
    results: Mapping[str, Any] | None = None
    """What ``results.json`` holds, if the best model was evaluated."""
    num_classes: Mapping[str, int] | None = None
    """Of each task, for its chance level."""


def sections(given: Material) -> list[Section]:
    """The whole report; what the sweep has nothing of is left out or says so."""
    sweep = given.sweep
    found = [
        _best(given),
        confirmation(sweep, given.confirmation),
        _results(given),
        *search_sections.sections(sweep),
        *outcome_sections.sections(sweep),
        _config(given),
    ]
    return [one for one in found if one is not None]


def _best(given: Material) -> Section:
    sweep, best = given.sweep, given.sweep.best
    reference = given.confirmation.reference_parameters if given.confirmation else {}
    head = ["setting", "drawn from", *(["best"] if best else []), *(["compared with"] if reference else [])]
    rows = [
        [name, source]
        + ([setting_text(best.parameters, name)] if best else [])
        + ([setting_text(reference, name)] if reference else [])
        for name, source in sweep.space.items()
    ]
    words = [
        f"Proposed by {sweep.sampler}." if sweep.sampler else "",
        f"Stopped early: {sweep.pruner}." if sweep.pruner else "",
    ]
    if best is not None and best.origin != "sampler":
        words.append(f"The best trial's settings came from: {best.origin}.")
    code = [given.command] if given.best_config is not None else []
    if code and given.confirmation is not None and given.confirmation.kept_arm == "reference":
        better = given.confirmation.reference
        words.append(f"Fresh seeds say that {better} is better; its config as it runs again, complete, is best.yaml:")
    elif code:
        words.append("The best config as it runs again, complete, is best.yaml beside this report:")
    return Section(
        "best", "The best setting", [one for one in words if one], code,
        tables=[Table("What was searched", head, rows, words=1)],
    )  # fmt: skip


def _results(given: Material) -> Section | None:
    if given.results is None and not given.sweep.is_finished:
        return None
    text = results_table(given.results, given.num_classes) if given.results else "The best model was not evaluated."
    return Section(
        "results", "Results on the test split", html_tables=results_section(given.results, given.num_classes),
        markdown_tables=f"```\n{text}\n```",
    )  # fmt: skip


def _config(given: Material) -> Section | None:
    if given.best_config is None:
        return None
    words = ["Saved as best.yaml beside this report. To train it again:"]
    return Section("config", "The config to run again", words, [given.command, given.best_config])
