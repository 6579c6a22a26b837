"""What the static pages have in common: one style sheet, the table of results, and where the numbers come from."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from neurolm.reports.results import results_notes, results_rows, write_whole


def write_page(path: Path, template: str, shown: Mapping[str, str]) -> None:
    """Fill a template of this package and write it, whole or not at all; its ``$style`` is the common style sheet."""
    folder = files("neurolm.reports")
    page = Template(folder.joinpath(template).read_text(encoding="utf-8"))
    style = folder.joinpath("page.css").read_text(encoding="utf-8")
    write_whole(path, page.substitute({"style": style, **shown}))


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


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows of texts, the first of each its name; escaped."""
    columns = "".join(f"<th scope='col'>{escape(name)}</th>" for name in head)
    body = "".join(
        f"<tr><th scope='row'>{escape(first)}</th>{''.join(f'<td>{escape(text)}</td>' for text in others)}</tr>"
        for first, *others in rows
    )
    return f"<div class='wide'><table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>"


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
