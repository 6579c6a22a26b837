"""One run in MLflow; the only file that imports it.

Whatever is sent may be sent again: a process that dies between MLflow's answer and its own note of it does so.
Parameters stay as they are, tags are replaced, and MLflow's SQL stores keep one copy of a metric value of equal name,
step and time.
"""

import contextlib
import functools
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from neurolm.tracking.secrets import RUN_KEY_TAG
from neurolm.tracking.settings import sqlite_file
from neurolm.tracking.tracker import Status

log = logging.getLogger(__name__)

MetricValue = tuple[str, float, int, int]
"""Name, value, time in ms, step."""


class MlflowRun:
    """A run that is found by its key, or made; every call may raise whatever a server, a driver or a disk does.

    Args:
        uri: MLflow tracking URI.
        experiment: its name; made if need be. With SQLite, artifacts lie beside the database.
        name: what people see.
        run_key: finds the run again.
    """

    def __init__(self, uri: str, experiment: str, name: str, run_key: str) -> None:
        self._client = _client(uri)
        with _one_process_at_a_time(uri):
            self.experiment_id = _experiment(self._client, experiment, uri)
            found = _find_run(self._client, self.experiment_id, run_key)
            if found is None:
                made = self._client.create_run(
                    self.experiment_id, tags={RUN_KEY_TAG: _searchable(run_key)}, run_name=name
                )
                found = made.info.run_id
        self.run_id: str = found

    def running(self) -> None:
        """A process has begun, or begun again, to train."""
        self._client.update_run(self.run_id, status="RUNNING")

    def link_parent(self, run_key: str) -> bool:
        """Put the run below its sweep's; False while MLflow does not know that one."""
        parent = _find_run(self._client, self.experiment_id, run_key)
        if parent is not None:
            self._client.set_tag(self.run_id, "mlflow.parentRunId", parent)
        return parent is not None

    def params(self, values: Mapping[str, Any]) -> None:
        """Record settings; MLflow keeps them fixed, so one that changed at a restart becomes a tag ``changed.…``."""
        from mlflow.entities import Param

        texts = {_mlflow_name(name): _mlflow_text(value) for name, value in values.items()}
        known = self._client.get_run(self.run_id).data.params
        fresh = [Param(name, value) for name, value in texts.items() if name not in known]
        for start in range(0, len(fresh), 100):  # the most that MLflow takes at once
            self._client.log_batch(self.run_id, params=fresh[start : start + 100])
        self.tags({f"changed.{name}": value for name, value in texts.items() if known.get(name, value) != value})

    def tags(self, values: Mapping[str, Any]) -> None:
        """Record facts; they may change later."""
        from mlflow.entities import RunTag

        tags = [RunTag(_mlflow_name(name), _mlflow_text(value)) for name, value in values.items()]
        for start in range(0, len(tags), 100):
            self._client.log_batch(self.run_id, tags=tags[start : start + 100])

    def metrics(self, values: Sequence[MetricValue]) -> None:
        """Record values."""
        from mlflow.entities import Metric

        metrics = [Metric(_mlflow_name(name), value, time_ms, step) for name, value, time_ms, step in values]
        for start in range(0, len(metrics), 1000):
            self._client.log_batch(self.run_id, metrics=metrics[start : start + 1000])

    def artifact(self, path: Path) -> None:
        """Copy a file or folder to the run's artifacts."""
        if path.is_dir():
            self._client.log_artifacts(self.run_id, str(path), artifact_path=path.name)
        elif path.exists():
            self._client.log_artifact(self.run_id, str(path))
        else:
            log.warning("%s is gone and is no artifact of the run", path)

    def ended(self, status: Status, time_ms: int) -> None:
        """The process that trained has ended it."""
        self._client.set_terminated(self.run_id, status, end_time=time_ms)


def run_page(uri: str, experiment_id: str, run_id: str) -> str:
    """Where people see a run: its page on a server, or how to open the database."""
    if (database := sqlite_file(uri)) is not None:
        return f"mlflow ui --backend-store-uri sqlite:///{database} --host 127.0.0.1 (run {run_id})"
    return f"{uri.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"


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
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # one warning of ours says that a server is away
    if database := sqlite_file(uri):
        database.parent.mkdir(parents=True, exist_ok=True)
    with _one_process_at_a_time(uri):
        return MlflowClient(tracking_uri=uri)


@contextlib.contextmanager
def _one_process_at_a_time(uri: str) -> Iterator[None]:
    """Hold a lock beside a SQLite store: two processes must not both create its tables, nor the same run."""
    database = sqlite_file(uri)
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
        return str(experiment.experiment_id)
    database = sqlite_file(uri)
    location = (database.parent / "mlflow-artifacts").as_uri() if database else None
    return str(client.create_experiment(name, artifact_location=location))


def _find_run(client: Any, experiment_id: str, run_key: str) -> str | None:
    wanted = f"tags.`{RUN_KEY_TAG}` = '{_searchable(run_key)}'"
    runs = client.search_runs([experiment_id], wanted, max_results=1, order_by=["attributes.start_time ASC"])
    return runs[0].info.run_id if runs else None


def _searchable(run_key: str) -> str:
    """The key as it can stand in MLflow's query; a long or quoted one is replaced by its digest."""
    is_plain = re.fullmatch(r"[\w ./:@=+-]{1,250}", run_key)
    return run_key if is_plain else f"sha256:{hashlib.sha256(run_key.encode()).hexdigest()}"


def _mlflow_name(name: str) -> str:
    return re.sub(r"[^\w./\- :]", "_", name)


def _mlflow_text(value: Any) -> str:
    """A value as text that a dotted override reads back."""
    return value if isinstance(value, str) else json.dumps(value, default=str)
