"""What all report pages share: one file of HTML each, one look, tables that screen readers announce."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from neurolm.reports.results import results_notes, results_rows, write_whole


def page(template: str, shown: Mapping[str, str]) -> str:
    """A page: the named template of this package with the common style sheet and ``shown`` filled in."""
    folder = files("neurolm.reports")
    style = folder.joinpath("page.css").read_text(encoding="utf-8")
    return Template(folder.joinpath(template).read_text(encoding="utf-8")).substitute(shown, style=style)


def write_page(path: Path, template: str, shown: Mapping[str, str]) -> None:
    """Write a page, whole or not at all."""
    write_whole(path, page(template, shown))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, words: int | None = None) -> str:
    """A table of plain texts; the first cell of a row is its header, column ``words`` is prose and may be broken."""
    kinds = [" class='words'" if place == words else "" for place in range(len(head))]
    heads = "".join(f"<th scope='col'{kind}>{escape(name)}</th>" for name, kind in zip(head, kinds, strict=True))
    body = "".join(
        f"<tr><th scope='row'>{escape(first)}</th>"
        + "".join(f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(others, kinds[1:], strict=True))
        + "</tr>"
        for first, *others in rows
    )
    return f"<div class='wide'><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"


def results_section(results: Mapping[str, Any] | None, num_classes: Mapping[str, int] | None) -> str:
    """The table of results with its notes."""
    if results is None or not results["tasks"]:
        return "<p>The best model was not evaluated.</p>"
    rows = results_rows(results, num_classes)
    size = ("windows", "recordings", "subjects")
    rows = [
        {"task": f"{row['task']} ({row['split']})", " / ".join(size): " / ".join(row[name] for name in size)}
        | {name: value for name, value in row.items() if name not in ("task", "split", *size)}
        for row in rows
    ]
    notes = "".join(f"<li>{escape(note)}</li>" for note in results_notes(results, num_classes))
    return f"{table(list(rows[0]), [list(row.values()) for row in rows])}<ul>{notes}</ul>"


def origin(results: Mapping[str, Any] | None) -> str:
    """The sentence that says what was evaluated."""
    if results is None:
        return ""
    names = {"config_digest": "config", "data_digest": "data", "git_commit": "commit", "seed": "seed"}
    parts = (
        f"{word} <code>{escape(str(results[name] if results[name] is not None else 'unknown'))}</code>"
        for name, word in names.items()
        if name in results
    )
    return "Evaluated with " + ", ".join(parts) + "."
