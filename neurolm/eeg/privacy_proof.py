"""The proof that a store names nobody: it is read again, text by text."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from neurolm.config import UserError
from neurolm.eeg.manifest import MANIFEST

KEYED = {"subject": 16, "recording": 16, "window_digest": 64}
"""Text columns that hold nothing but so many hexadecimal digits."""
MIN_BYTES = 6
"""Shorter texts are looked for in decoded texts only: signals and compressed bytes hold any three letters somewhere."""
_DIGEST = re.compile("[0-9a-f]{16,64}")
"""Digits in which a short name such as Ada may stand by chance; that they are digits and no more is proved apart."""


class PrivacyError(UserError):
    """A store that says something about a person."""


def prove_private(store: Path, identifying: Iterable[str] = ()) -> None:
    """Read a store again and refuse it where it names somebody.

    Subjects, recordings and digests must be hexadecimal digits and nothing else, in every shard, sidecar and manifest.
    None of the ``identifying`` texts (names, birth dates, numbers of patients, of two letters or more, in any case) may
    be in a file's name, a text column, a column's name, Parquet metadata, the manifest, or in the bytes of any file.

    Args:
        store: a store, finished or without its manifest.
        identifying: what must not be found; what is found is not repeated in the error, only its place in this list.

    Raises:
        PrivacyError: all places where something was found.
    """
    wanted = [text.casefold() for text in identifying]
    if short := [place for place, text in enumerate(wanted) if len(text) < 2]:
        raise ValueError(f"identifying texts {short} are shorter than two letters; they would be found anywhere")
    findings: list[str] = []
    for path in sorted(file for file in store.rglob("*") if file.is_file()):
        name = str(path.relative_to(store))
        texts = dict(_texts(path))
        findings += [f"{name}: {problem}" for where in texts for problem in _not_keyed(where, texts[where])]
        words = {
            where: {text.casefold() for text in values if not _DIGEST.fullmatch(text)}
            for where, values in texts.items()
        }
        content = path.read_bytes().lower() if wanted else b""
        for place, text in enumerate(wanted):
            found = [where for where, values in words.items() if any(text in value for value in values)]
            found += ["the file's name"] if text in name.casefold() else []
            found += ["its bytes"] if _is_in(text, content) else []
            if found:
                shown = "a file" if any(text in name.casefold() for text in wanted) else name
                findings.append(f"{shown}: identifying text {place} is in {', '.join(found)}")
    if findings:
        raise PrivacyError(f"{store}: this store is not private: {'; '.join(findings)}; do not share it, make it again")


def _texts(path: Path) -> Iterator[tuple[str, set[str]]]:
    """Every text in a file of a store, by where it stands."""
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as parquet:
            schema = parquet.schema_arrow
            metadata = {**(schema.metadata or {}), **(parquet.metadata.metadata or {})}
            yield "column names", {parquet.schema.column(place).path for place in range(len(parquet.schema.names))}
            metadata.pop(b"ARROW:schema", None)  # the same names and metadata once more, in another form
            yield "metadata", {part.decode("utf-8", "replace") for item in metadata.items() for part in item}
            for field in schema:
                if _is_text(field.type):
                    yield f"column {field.name}", _distinct(parquet, field.name)
    elif path.name == MANIFEST:
        manifest = json.loads(path.read_text())
        yield "quarantined recordings", set(manifest["quarantined"])
        yield "the manifest", set(_strings(manifest))


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_nested(kind):
        return any(_is_text(kind.field(place).type) for place in range(kind.num_fields))
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    )  # fmt: skip


def _distinct(parquet: pq.ParquetFile, name: str) -> set[str]:
    found: set[str] = set()
    for group in range(parquet.num_row_groups):
        found |= set(_strings(parquet.read_row_group(group, columns=[name]).column(name).to_pylist()))
    return found


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes):
        yield value.decode("utf-8", "replace")
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def _not_keyed(where: str, values: set[str]) -> Iterator[str]:
    digits = 16 if where == "quarantined recordings" else KEYED.get(where.removeprefix("column "))
    if digits is not None:
        wrong = sum(re.fullmatch(rf"[0-9a-f]{{{digits}}}", value) is None for value in values)
        if wrong:
            yield f"{where}: {wrong} values are no keyed ids of {digits} hexadecimal digits"


def _is_in(text: str, content: bytes) -> bool:
    if len(text.encode()) < MIN_BYTES or re.fullmatch("[0-9a-f]+", text):
        return False
    return any(text.encode(code, "ignore") in content for code in ("utf-8", "latin-1", "utf-16-le"))
