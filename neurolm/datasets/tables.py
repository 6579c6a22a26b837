"""Tables beside recordings: .tsv, .csv and .txt files with a header line, values as text."""

import csv
from pathlib import Path

from neurolm.config import UserError

_DELIMITERS = (",", ";", "\t")


class TableError(UserError):
    """A table that cannot be read; the message does not name the file, which may be named after a person."""


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a table, by column. Raises TableError: missing, empty or ragged."""
    if not path.is_file():
        raise TableError("the file is missing")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        lines = path.read_text(encoding="latin-1").splitlines()
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise TableError("the file is empty")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(_DELIMITERS, key=lines[0].count)
    header, *rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter)]
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise TableError(f"line {number} has {len(row)} values under {len(header)} columns")
    return [dict(zip(header, row, strict=True)) for row in rows]


def column(rows: list[dict[str, str]], name: str) -> list[str]:
    """One column. Raises TableError that lists what there is."""
    if rows and name not in rows[0]:
        raise TableError(f"no column {name!r}; found {', '.join(rows[0])}")
    return [row[name] for row in rows]
