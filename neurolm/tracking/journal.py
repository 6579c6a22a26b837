"""The run's own record, ``tracking.jsonl``: one JSON object a line, appended by whoever trains."""

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from neurolm.tracking.secrets import without_secrets
from neurolm.tracking.tracker import Status

log = logging.getLogger(__name__)

FILE_NAME = "tracking.jsonl"


class Delivery(Protocol):
    """Carries the record elsewhere while it is written."""

    def start(self) -> None:
        """Begin to read the record."""

    def close(self) -> None:
        """The record has its last line."""


class JsonlTracker:
    """One JSON object a line, appended; survives a killed process and is read by ``read_curves``."""

    def __init__(
        self,
        path: Path,
        run_key: str | None = None,
        name: str | None = None,
        parent: str | None = None,
        delivery: Delivery | None = None,
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._is_closed = False
        self._delivery = delivery
        if path.exists() and not _ends_with_newline(path):
            with path.open("ab") as file:
                file.write(b"\n")  # a killed process left half a line; ours must not be lost with it
        identity = {"run_key": run_key, "name": name, "parent": parent}
        self._write("start", **{key: value for key, value in identity.items() if value is not None})
        if delivery is not None:
            delivery.start()

    def params(self, values: Mapping[str, Any]) -> None:
        """Append the settings, without secrets."""
        self._write("params", values=without_secrets(values))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Append the values of a step; not-a-number and infinities as strings that ``float`` reads."""
        plain = {
            name: number if math.isfinite(number := float(value)) else str(number) for name, value in values.items()
        }
        self._write("metrics", step=int(step), values=plain)

    def tags(self, values: Mapping[str, str]) -> None:
        """Append facts, without secrets."""
        self._write("tags", values=without_secrets(values))

    def artifact(self, path: Path) -> None:
        """Append the path of a file; the file stays where it is."""
        self._write("artifact", path=str(path.absolute()))

    def close(self, status: Status = "FINISHED") -> None:
        """Append the status; closing again does nothing."""
        if not self._is_closed:
            self._is_closed = True
            self._write("close", status=status)
            if self._delivery is not None:
                self._delivery.close()

    def _write(self, event: str, **fields: Any) -> None:
        line = json.dumps({"event": event, "time": round(time.time(), 3), **fields}, default=str)
        with self.path.open("ab", buffering=0) as file:  # one write a line: lines of several processes do not mix
            file.write(line.encode() + b"\n")


@dataclass(frozen=True)
class Piece:
    """Whole lines of a record."""

    entries: list[dict[str, Any]]
    end: int
    """Offset in bytes after the last of them."""
    next_line: int
    """Number of the line there, counted from 1."""


def read_pieces(path: Path, offset: int = 0, line: int = 1, max_bytes: int = 2**18) -> Iterator[Piece]:
    """The record from an offset on, some hundred lines at a time; a line that is still being written waits."""
    with path.open("rb") as file:
        file.seek(offset)
        rest = b""
        while chunk := file.read(max_bytes):
            whole, newline, rest = (rest + chunk).rpartition(b"\n")
            entries = []
            for text in whole.split(b"\n") if newline else []:
                try:
                    entries.append(json.loads(text))
                except ValueError:
                    log.warning("%s: line %d is cut off and left out; its process was killed", path, line)
                line += 1
            offset += len(whole) + len(newline)
            yield Piece(entries, offset, line)


def read_curves(path: Path) -> dict[str, list[tuple[int, float]]]:
    """The metrics of a ``tracking.jsonl`` by name, in order of steps; a step that ran twice counts as it ran last."""
    curves: dict[str, dict[int, float]] = {}
    for piece in read_pieces(path):
        for entry in piece.entries:
            if entry["event"] == "metrics":
                for name, value in entry["values"].items():
                    curves.setdefault(name, {})[entry["step"]] = float(value)
    return {name: sorted(curve.items()) for name, curve in curves.items()}


def _ends_with_newline(path: Path) -> bool:
    return path.stat().st_size == 0 or path.read_bytes()[-1:] == b"\n"
