"""What all report pages share: one file of HTML each, one look, tables that screen readers announce."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template


def page(template: str, shown: Mapping[str, str]) -> str:
    """A page: the named template of this package with the common style sheet and ``shown`` filled in."""
    folder = files("neurolm.reports")
    style = folder.joinpath("page.css").read_text(encoding="utf-8")
    return Template(folder.joinpath(template).read_text(encoding="utf-8")).substitute(shown, style=style)


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
