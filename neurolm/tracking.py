"""What a run reports and where it goes: a local JSONL file first, then MLflow (this file alone imports it).

Training never waits for a tracking server and never fails with it. Every value is appended to ``tracking.jsonl``
before MLflow hears of it; what MLflow did not take is kept and offered again, and one warning says so.

A run is found again by its key (tag ``neurolm.run_key``), so a restarted process continues the MLflow run it had
instead of opening a second one. A trial names the key of its sweep and appears below it in the MLflow pages.
"""

import contextlib
import functools
import hashlib
import json
import logging
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import field_validator

from neurolm.config import UserError, config

log = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "KILLED"]
"""MLflow's words for how a run ended."""
FILE_NAME = "tracking.jsonl"
RUN_KEY_TAG = "neurolm.run_key"
FLUSH_EVERY_S = 2.0
FIRST_RETRY_S, LAST_RETRY_S = 5.0, 300.0
MAX_KEPT_METRICS = 100_000
SQLITE = "sqlite:///"


@config
class TrackingConfig:
    """Where runs are recorded besides the run's own ``tracking.jsonl``."""

    uri: str | None = None
    """MLflow tracking URI: ``sqlite:////data/mlflow.db``, ``https://mlflow.lab``; unset: mlflow.db in the results."""
    experiment: str = "neurolm"
    """MLflow experiment that the runs belong to."""
    enabled: bool = True
    """Whether runs go to MLflow; the local file is written in any case."""

    @field_validator("uri")
    @classmethod
    def _no_plain_folder(cls, uri: str | None) -> str | None:
        if uri is not None and ("://" not in uri or uri.startswith("file:")):
            raise ValueError(
                "MLflow keeps no runs in plain folders; write sqlite:////absolute/mlflow.db or a server's address"
            )
        return uri

    def at(self, out: str | Path) -> "TrackingConfig":
        """The same with an absolute ``uri`` (mlflow.db in ``out`` if unset): one store, whatever process reads it."""
        uri = self.uri
        if uri is None and self.enabled:
            if "://" in str(out):
                raise UserError(
                    f"tracking.uri: not set, and out={out} cannot hold MLflow's database; "
                    "set tracking.uri to an MLflow server or tracking.enabled=false"
                )
            uri = f"{SQLITE}{Path(out).absolute() / 'mlflow.db'}"
        elif uri is not None and (database := _sqlite_file(uri)):
            uri = f"{SQLITE}{database}"
        return TrackingConfig(uri=uri, experiment=self.experiment, enabled=self.enabled)


class Tracker(Protocol):
    """Where a run reports to; training knows nothing else about tracking."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Record settings by their flat dotted names."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record values at an optimizer step."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Record facts about the run that are no settings."""

    def artifact(self, path: Path) -> None:
        """Record a file or folder that the run made."""

    def close(self, status: Status = "FINISHED") -> None:
        """Say how the run ended; nothing may be recorded afterwards."""


class TeeTracker:
    """Reports to several trackers in turn."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self.trackers = trackers

    def params(self, values: Mapping[str, Any]) -> None:
        """Record settings everywhere."""
        for tracker in self.trackers:
            tracker.params(values)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record values at an optimizer step everywhere."""
        for tracker in self.trackers:
            tracker.metrics(step, values)

    def tags(self, values: Mapping[str, str]) -> None:
        """Record facts everywhere."""
        for tracker in self.trackers:
            tracker.tags(values)

    def artifact(self, path: Path) -> None:
        """Record a file everywhere."""
        for tracker in self.trackers:
            tracker.artifact(path)

    def close(self, status: Status = "FINISHED") -> None:
        """Close every tracker."""
        for tracker in self.trackers:
            tracker.close(status)


class NullTracker(TeeTracker):
    """Records nothing: workers other than the first, and tests."""

    def __init__(self) -> None:
        super().__init__(())


def start_run(
    config: TrackingConfig, *, folder: Path, name: str, run_key: str, parent: str | None = None, rank: int = 0
) -> Tracker:
    """Open the run ``run_key``, or continue it: JSONL in ``folder``, then MLflow.

    Args:
        config: where MLflow is; an unset ``uri`` means mlflow.db in the folder that ``folder`` lies in.
        folder: the run's own folder; ``tracking.jsonl`` is appended to.
        name: what people see; need not be unique.
        run_key: what makes the run one run, whatever restarts; unique in the experiment.
        parent: run key of the sweep that this run is a trial of.
        rank: of the worker; only the first worker records anything.
    """
    if rank != 0:
        return NullTracker()
    local = JsonlTracker(folder / FILE_NAME, run_key=run_key)
    if not config.enabled:
        return local
    uri = config.at(folder.parent).uri
    assert uri is not None
    mlflow = MlflowTracker(uri, config.experiment, name, run_key, parent_run_key=parent)
    mlflow.flush()
    return TeeTracker([local, mlflow])


class JsonlTracker:
    """One JSON object a line, appended; survives a killed process and is read by ``read_curves``."""

    def __init__(self, path: Path, run_key: str | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._is_closed = False
        if path.exists() and not _ends_with_newline(path):
            with path.open("ab") as file:
                file.write(b"\n")  # a killed process left half a line; ours must not be lost with it
        self._write("start", **({"run_key": run_key} if run_key else {}))

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
        self._write("artifact", path=str(path))

    def close(self, status: Status = "FINISHED") -> None:
        """Append the status; closing again does nothing."""
        if not self._is_closed:
            self._write("close", status=status)
        self._is_closed = True

    def _write(self, event: str, **fields: Any) -> None:
        line = json.dumps({"event": event, "time": round(time.time(), 3), **fields}, default=str)
        with self.path.open("ab", buffering=0) as file:  # one write a line: lines of several processes do not mix
            file.write(line.encode() + b"\n")


def read_curves(path: Path) -> dict[str, list[tuple[int, float]]]:
    """The metrics of a ``tracking.jsonl`` by name, in order of steps; a step that ran twice counts as it ran last."""
    curves: dict[str, dict[int, float]] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            entry = json.loads(line)
        except ValueError:
            log.warning("%s: line %d is cut off and left out; the process that wrote it was killed", path, number)
            continue
        if entry["event"] == "metrics":
            for name, value in entry["values"].items():
                curves.setdefault(name, {})[entry["step"]] = float(value)
    return {name: sorted(curve.items()) for name, curve in curves.items()}


class MlflowTracker:
    """Keeps an MLflow run in step, in batches; a failing server costs a warning, never the training.

    Args:
        uri: MLflow tracking URI.
        experiment: its name; made if need be. With SQLite, artifacts lie beside the database.
        run_name: what people see.
        run_key: finds the run again.
        parent_run_id: MLflow id of the sweep's run.
        parent_run_key: or its key, for processes that do not know the id.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        run_name: str,
        run_key: str,
        parent_run_id: str | None = None,
        parent_run_key: str | None = None,
    ) -> None:
        self.uri, self.experiment, self.run_name, self.run_key = uri, experiment, run_name, run_key
        self.parent_run_id, self.parent_run_key = parent_run_id, parent_run_key
        self.run_id: str | None = None
        self._metrics: list[tuple[str, float, int, int]] = []
        self._params: dict[str, str] = {}
        self._tags: dict[str, str] = {}
        self._artifacts: list[Path] = []
        self._status: Status | None = None
        self._flushed_at = self._failures = self._lost = 0.0

    def params(self, values: Mapping[str, Any]) -> None:
        """Record settings; MLflow keeps them fixed, so one that changed at a restart becomes a tag ``changed.…``."""
        self._params |= {_mlflow_name(name): _mlflow_text(value) for name, value in without_secrets(values).items()}
        self._flush_if_due(0.0)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record values; they reach MLflow within seconds, in one batch."""
        now = int(time.time() * 1000)
        self._metrics += [(_mlflow_name(name), float(value), now, int(step)) for name, value in values.items()]
        excess = len(self._metrics) - MAX_KEPT_METRICS
        if excess > 0:
            del self._metrics[:excess]
            self._lost += excess
        self._flush_if_due(FLUSH_EVERY_S)

    def tags(self, values: Mapping[str, str]) -> None:
        """Record facts; they may change later."""
        self._tags |= {_mlflow_name(name): _mlflow_text(value) for name, value in without_secrets(values).items()}
        self._flush_if_due(0.0)

    def artifact(self, path: Path) -> None:
        """Copy a file or folder to the run's artifacts."""
        self._artifacts.append(Path(path))
        self._flush_if_due(0.0)

    def close(self, status: Status = "FINISHED") -> None:
        """Send what is left and end the MLflow run."""
        self._status = status
        self.flush()
        missing = len(self._metrics) + int(self._lost)
        if missing or self.run_id is None:
            log.warning("MLflow run %s: %d metric values are only in %s", self.run_name, missing, FILE_NAME)

    def flush(self) -> bool:
        """Send what is waiting; False if MLflow did not take all of it (it is kept for the next time)."""
        self._flushed_at = time.monotonic()
        try:
            self._send(_client(self.uri))
        except Exception as error:  # whatever a server, a driver or a disk does, training goes on
            if not self._failures:
                _warn_about(error, self.uri)
            self._failures += 1
            return False
        self._failures = 0
        return True

    def _flush_if_due(self, every_s: float) -> None:
        if self._failures:
            every_s = min(FIRST_RETRY_S * 2 ** (self._failures - 1), LAST_RETRY_S)
        if time.monotonic() - self._flushed_at >= every_s:
            self.flush()

    def _send(self, client: Any) -> None:
        from mlflow.entities import Metric, Param, RunTag

        if self.run_id is None:
            with _one_process_at_a_time(self.uri):
                self.run_id = self._find_or_create(client)
        if self._params:
            known = client.get_run(self.run_id).data.params
            fresh = [Param(name, value) for name, value in self._params.items() if name not in known]
            for start in range(0, len(fresh), 100):  # the most that MLflow takes at once
                client.log_batch(self.run_id, params=fresh[start : start + 100])
            self._tags |= {
                f"changed.{name}": value for name, value in self._params.items() if known.get(name, value) != value
            }
            self._params.clear()
        if self._tags:
            tags = [RunTag(name, value) for name, value in self._tags.items()]
            for start in range(0, len(tags), 100):
                client.log_batch(self.run_id, tags=tags[start : start + 100])
            self._tags.clear()
        while self._metrics:
            client.log_batch(self.run_id, metrics=[Metric(*metric) for metric in self._metrics[:1000]])
            del self._metrics[:1000]
        while self._artifacts:
            path = self._artifacts[0]
            log_artifact = client.log_artifacts if path.is_dir() else client.log_artifact
            log_artifact(self.run_id, str(path), **({"artifact_path": path.name} if path.is_dir() else {}))
            del self._artifacts[0]
        if self._status is not None:
            client.set_terminated(self.run_id, self._status)

    def _find_or_create(self, client: Any) -> str:
        experiment_id = _experiment(client, self.experiment, self.uri)
        run_id = _find_run(client, experiment_id, self.run_key)
        if run_id is not None:
            client.update_run(run_id, status="RUNNING")
            return run_id
        tags = {RUN_KEY_TAG: _searchable(self.run_key)}
        parent = self.parent_run_id
        if parent is None and self.parent_run_key is not None:
            parent = _find_run(client, experiment_id, self.parent_run_key)
            if parent is None:
                log.warning(
                    "MLflow run %s: its sweep %s is not there yet; it stands alone", self.run_name, self.parent_run_key
                )
        if parent is not None:
            tags["mlflow.parentRunId"] = parent
        return client.create_run(experiment_id, tags=tags, run_name=self.run_name).info.run_id


def without_secrets(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values whose names look like no secret, passwords in addresses blanked; says by name what is left out."""
    kept: dict[str, Any] = {}
    for name, value in values.items():
        if name != RUN_KEY_TAG and is_secret(name, value):
            log.info("%s looks like a secret and is not recorded", name)
        elif isinstance(value, Mapping):
            kept[name] = without_secrets(value)
        elif isinstance(value, list | tuple):
            kept[name] = [without_secrets({name: item})[name] for item in value]
        elif isinstance(value, str):
            kept[name] = re.sub(r"(?<=://)[^/@\s]+@", "***@", value)
        else:
            kept[name] = value
    return kept


EEG_TOKEN_SETTINGS = ("data.tokens", "data.token_store", "data.pretraining_token_store")
"""Settings whose names only look as if they told a secret."""


def is_secret(name: str, value: Any = "") -> bool:
    """Whether a setting's name says secret: a word ending in token, key, secret, password or the like, anywhere in it.

    ``tokenizer.hidden_size`` is none, nor is a *number* of tokens, nor where EEG tokens lie.
    """
    if name in EEG_TOKEN_SETTINGS:
        return False
    words = re.split(r"[\W_]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())
    is_count = value is None or isinstance(value, bool | int | float)
    endings = ("key", "secret", "password", "passwd", "passphrase", "credential") + (() if is_count else ("token",))
    return any(word.removesuffix("s").endswith(endings) for word in words)


@functools.cache
def _client(uri: str) -> Any:
    """A quiet MLflow client; making the first one takes seconds and, with SQLite, creates the database."""
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }.items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient

    for logger in ("alembic", "mlflow.store", "mlflow.tracking"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    if database := _sqlite_file(uri):
        database.parent.mkdir(parents=True, exist_ok=True)
    with _one_process_at_a_time(uri):
        return MlflowClient(tracking_uri=uri)


@contextlib.contextmanager
def _one_process_at_a_time(uri: str) -> Iterator[None]:
    """Hold a lock beside a SQLite store: two processes must not both create its tables, nor the same run."""
    database = _sqlite_file(uri)
    if database is None:
        yield
        return
    import fcntl

    with Path(f"{database}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _experiment(client: Any, name: str, uri: str) -> str:
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return experiment.experiment_id
    database = _sqlite_file(uri)
    location = (database.parent / "mlflow-artifacts").as_uri() if database else None
    return client.create_experiment(name, artifact_location=location)


def _find_run(client: Any, experiment_id: str, run_key: str) -> str | None:
    wanted = f"tags.`{RUN_KEY_TAG}` = '{_searchable(run_key)}'"
    runs = client.search_runs([experiment_id], wanted, max_results=1, order_by=["attributes.start_time ASC"])
    return runs[0].info.run_id if runs else None


def _searchable(run_key: str) -> str:
    """The key as it can stand in MLflow's query; a long or quoted one is replaced by its digest."""
    is_plain = re.fullmatch(r"[\w ./:@=+-]{1,250}", run_key)
    return run_key if is_plain else f"sha256:{hashlib.sha256(run_key.encode()).hexdigest()}"


def _sqlite_file(uri: str) -> Path | None:
    return Path(uri.removeprefix(SQLITE)).absolute() if uri.startswith(SQLITE) else None


def _mlflow_name(name: str) -> str:
    return re.sub(r"[^\w./\- :]", "_", name)


def _mlflow_text(value: Any) -> str:
    """A value as text that a dotted override reads back."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _warn_about(error: Exception, uri: str) -> None:
    safe = without_secrets({"uri": uri})["uri"]
    if isinstance(error, ImportError):
        log.warning(
            "MLflow is not installed (%s); runs are only in %s. pip install 'neurolm[tracking]'", error, FILE_NAME
        )
    else:
        log.warning("MLflow at %s does not answer (%s); going on, everything is in %s", safe, error, FILE_NAME)


def _ends_with_newline(path: Path) -> bool:
    return path.stat().st_size == 0 or path.read_bytes()[-1:] == b"\n"
