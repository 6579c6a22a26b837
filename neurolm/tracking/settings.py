"""Settings of tracking."""

from dataclasses import replace
from pathlib import Path

from pydantic import field_validator

from neurolm.config import UserError, config

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
    system_metrics: bool = True
    """Whether a run records what its nodes are busy with: processor, memory, disk and network, every 10 s."""

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
        elif uri is not None and (database := sqlite_file(uri)):
            uri = f"{SQLITE}{database}"
        return replace(self, uri=uri)


def sqlite_file(uri: str) -> Path | None:
    """The database file of a SQLite address; None for a server."""
    return Path(uri.removeprefix(SQLITE)).absolute() if uri.startswith(SQLITE) else None
