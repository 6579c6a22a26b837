"""Carries a run's record to MLflow, in a thread that training never waits for.

The record itself is the queue: at most some hundred lines of it are in memory, however long a server is away. How far
MLflow has got is written to ``mlflow.json`` beside the record after every piece, so another process goes on there, and
a value that a resumed run computes again for a step that MLflow already has is not sent a second time.
"""

import contextlib
import fcntl
import json
import logging
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from neurolm.config import UserError, build
from neurolm.tracking.journal import FILE_NAME, read_pieces
from neurolm.tracking.mlflow_run import MetricValue, MlflowRun
from neurolm.tracking.secrets import without_secrets
from neurolm.tracking.settings import TrackingConfig

log = logging.getLogger(__name__)

STATE_NAME = "mlflow.json"
LOOK_EVERY_S = 2.0
FIRST_RETRY_S, LAST_RETRY_S = 5.0, 300.0
CLOSE_WITHIN_S = 120.0
"""How long the end of a run may wait for MLflow to take what is left."""


@dataclass(frozen=True)
class Delivered:
    """How much of a record an MLflow run has."""

    uri: str
    experiment: str
    run_id: str
    experiment_id: str
    offset: int = 0
    next_line: int = 1
    last_steps: dict[str, int] = field(default_factory=dict)
    """The last step whose value was sent, by metric."""


@dataclass(frozen=True)
class Identity:
    """By what a run is known."""

    run_key: str
    name: str
    parent: str | None = None
    """Run key of the sweep that the run is a trial of."""


class Delivery:
    """The delivery of one folder's record; several processes may deliver the same, one after another.

    Args:
        folder: the run's.
        config: with the address of MLflow.
        identity: of the run.
    """

    def __init__(self, folder: Path, config: TrackingConfig, identity: Identity) -> None:
        assert config.uri is not None
        self._folder, self._uri, self._experiment, self._identity = folder, config.uri, config.experiment, identity
        self._run: MlflowRun | None = None
        self._has_parent = False
        self._failures = 0
        self._closing, self._looked = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._keep_delivering, name="mlflow", daemon=True)

    def start(self) -> None:
        """Begin to read the record."""
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Wait until MLflow was asked once, but not for ever."""
        self._looked.wait(seconds)

    def close(self) -> None:
        """Send what is left, once; what a server that is away has not got is sent by the next process."""
        self._closing.set()
        self._thread.join(CLOSE_WITHIN_S)
        if self._thread.is_alive() or self._failures:
            log.warning(
                "MLflow has not got all of %s; `neurolm track %s` sends the rest",
                self._folder / FILE_NAME,
                self._folder,
            )

    def deliver(self) -> int:
        """Send all lines that MLflow has not got and return their number.

        Raises whatever goes wrong, after noting what is done.
        """
        path = self._folder / FILE_NAME
        with _lock(self._folder):
            delivered, size = read_delivered(self._folder), path.stat().st_size
            where = without_secrets({"uri": self._uri})["uri"], self._experiment
            if delivered is not None and ((delivered.uri, delivered.experiment) != where or delivered.offset > size):
                delivered = None  # another store, or another record
            if delivered is not None and delivered.offset == size:
                return 0
            if self._run is None:
                identity = self._identity
                self._run = MlflowRun(self._uri, self._experiment, identity.name, identity.run_key)
            if delivered is None or delivered.run_id != self._run.run_id:
                delivered = Delivered(*where, self._run.run_id, self._run.experiment_id)
            first_line = delivered.next_line
            for piece in read_pieces(path, delivered.offset, delivered.next_line):
                last_steps = _send(self._run, piece.entries, delivered.last_steps)
                delivered = replace(delivered, offset=piece.end, next_line=piece.next_line, last_steps=last_steps)
                _note(self._folder, delivered)
            if self._identity.parent is not None and not self._has_parent:
                self._has_parent = self._run.link_parent(self._identity.parent)
            return delivered.next_line - first_line

    def _keep_delivering(self) -> None:
        pause = 0.0
        while True:
            self._closing.wait(pause)
            is_last = self._closing.is_set()
            try:
                self.deliver()
                self._failures = 0
            except Exception as error:  # whatever a server, a driver or a disk does, training goes on
                if not self._failures:
                    _warn_about(error, self._uri)
                self._failures += 1
                self._run = None  # a server that comes back may have lost it
            self._looked.set()
            if is_last:
                return
            pause = min(FIRST_RETRY_S * 2 ** (self._failures - 1), LAST_RETRY_S) if self._failures else LOOK_EVERY_S


def read_delivered(folder: Path) -> Delivered | None:
    """How much of a folder's record MLflow has; None if nothing of it."""
    path = folder / STATE_NAME
    return Delivered(**json.loads(path.read_text())) if path.is_file() else None


def identity_of(folder: Path) -> Identity:
    """By what the run of a folder was last known, from its record. Raises UserError."""
    path = folder / FILE_NAME
    found: Identity | None = None
    for piece in read_pieces(path) if path.is_file() else ():
        for entry in piece.entries:
            if entry["event"] == "start" and "run_key" in entry:
                found = Identity(entry["run_key"], entry.get("name", folder.name), entry.get("parent"))
    if found is None:
        raise UserError(f"{folder}: holds no {FILE_NAME} of a run; give a run's own folder")
    return found


def deliver_folder(folder: Path) -> int:
    """Send what MLflow has not got of a run that nobody trains any more; returns the number of lines.

    Raises:
        UserError: there is no run, its config says that it is not tracked, or MLflow does not take it.
    """
    identity = identity_of(folder)
    path = folder / "config.yaml"
    values = yaml.safe_load(path.read_text()).get("tracking") if path.is_file() else None
    config = build(TrackingConfig, values or {}, source=str(path)).at(folder.parent)
    if not config.enabled:
        raise UserError(f"{path}: tracking.enabled is false, this run is only in its folder")
    try:
        return Delivery(folder, config, identity).deliver()
    except Exception as error:
        safe = without_secrets({"uri": config.uri})["uri"]
        raise UserError(f"{folder}: MLflow at {safe} does not take the run ({error}); try again later") from error


def _send(run: MlflowRun, entries: list[dict[str, Any]], last_steps: Mapping[str, int]) -> dict[str, int]:
    """Send a piece of the record; returns the last steps with those of this piece."""
    steps = dict(last_steps)
    metrics: list[MetricValue] = []
    for entry in entries:
        event, time_ms = entry["event"], int(1000 * entry["time"])
        if event == "metrics":
            for name, value in entry["values"].items():
                if entry["step"] > steps.get(name, -1):
                    steps[name] = entry["step"]
                    metrics.append((name, float(value), time_ms, entry["step"]))
        elif event == "start":
            run.running()
        elif event == "params":
            run.params(entry["values"])
        elif event == "tags":
            run.tags(entry["values"])
        elif event == "artifact":
            run.artifact(Path(entry["path"]))
        elif event == "close":
            run.metrics(metrics)
            metrics = []
            run.ended(entry["status"], time_ms)
    run.metrics(metrics)
    return steps


def _note(folder: Path, delivered: Delivered) -> None:
    aside = folder / f".{STATE_NAME}"
    aside.write_text(json.dumps(asdict(delivered)))
    aside.replace(folder / STATE_NAME)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One process or thread at a time delivers a folder's record."""
    with (folder / "mlflow.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _warn_about(error: Exception, uri: str) -> None:
    if isinstance(error, ImportError):
        log.warning(
            "MLflow is not installed (%s); runs are only in %s. pip install 'neurolm[tracking]'", error, FILE_NAME
        )
    else:
        safe = without_secrets({"uri": uri})["uri"]
        log.warning("MLflow at %s does not answer (%s); going on, everything is in %s", safe, error, FILE_NAME)
