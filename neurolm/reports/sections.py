"""A report as sections of words, pictures and tables, which become HTML or Markdown: what is said is said once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

from neurolm.reports.page import table


@dataclass(frozen=True)
class Table:
    """Plain texts in rows; the first cell of a row names it."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int | None = None
    """The column that is prose and may be broken."""
    is_open: bool = True
    """Whether the page shows it at once; else it is the numbers behind a picture, behind a line to open."""

    def html(self) -> str:
        """The table, or a line that opens it."""
        shown = table(self.head, self.rows, words=self.words)
        return shown if self.is_open else f"<details><summary>{escape(self.caption)}</summary>{shown}</details>"

    def markdown(self) -> str:
        """The table with bars between its columns; numbers flush right."""
        flush = [":---" if place in (0, self.words) else "---:" for place in range(len(self.head))]
        lines = [list(self.head), flush, *(list(row) for row in self.rows)]
        return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


@dataclass(frozen=True)
class Figure:
    """Pictures with a caption, and how to read their marks."""

    pictures: Sequence[str]
    caption: str
    key: str = ""
    """HTML of a legend."""

    def html(self) -> str:
        """One picture, or several side by side."""
        if not self.pictures:
            return ""
        several = len(self.pictures) > 1
        shown = "".join(f"<div>{picture}</div>" for picture in self.pictures) if several else self.pictures[0]
        kind = " class='grid-of-charts'" if several else ""
        return f"{self.key}<figure{kind}>{shown}<figcaption>{escape(self.caption)}</figcaption></figure>"


@dataclass(frozen=True)
class Section:
    """One heading and what stands below it."""

    anchor: str
    title: str
    words: Sequence[str] = ()
    code: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = field(default_factory=list)
    html_tables: str | None = None
    """Stands for the tables on a page."""
    markdown_tables: str | None = None
    """Stands for the tables in Markdown."""

    def html(self) -> str:
        """The section of a page."""
        parts = [f"<p>{escape(one)}</p>" for one in self.words]
        parts += [f"<pre tabindex='0'><code>{escape(one)}</code></pre>" for one in self.code]
        parts += [figure.html() for figure in self.figures]
        parts.append("".join(one.html() for one in self.tables) if self.html_tables is None else self.html_tables)
        return (
            f"<section aria-labelledby='{self.anchor}'><h2 id='{self.anchor}'>{escape(self.title)}</h2>"
            f"{''.join(parts)}</section>"
        )

    def markdown(self) -> str:
        """The section as Markdown; empty if it has nothing but pictures."""
        if not (self.words or self.code or self.tables or self.markdown_tables):
            return ""
        parts = [f"## {self.title}", *map(plain, self.words), *(f"```\n{one.rstrip()}\n```" for one in self.code)]
        if self.markdown_tables is not None:
            parts.append(self.markdown_tables)
        else:
            parts += [part for one in self.tables for part in (f"{one.caption}:", one.markdown())]
        return "\n\n".join(parts)


def contents(sections: Iterable[Section]) -> str:
    """Links to all sections."""
    links = "".join(f"<li><a href='#{one.anchor}'>{escape(one.title)}</a></li>" for one in sections)
    return f"<nav aria-label='On this page'><ul>{links}</ul></nav>"


def score(value: float | None) -> str:
    """A score for a table."""
    return "-" if value is None else f"{value:.4f}"


def signed(a: float | None, b: float | None) -> str:
    """The difference of two scores, a minus b, for a table."""
    return "-" if a is None or b is None else f"{a - b:+.4f}"


def plain(text: str) -> str:
    """Text in which Markdown sees no HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _cell(text: str) -> str:
    return plain(text).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ") or " "
