"""Opens a run, or continues it."""

from pathlib import Path

from neurolm.tracking.delivery import Delivery, Identity
from neurolm.tracking.journal import FILE_NAME, JsonlTracker
from neurolm.tracking.settings import TrackingConfig
from neurolm.tracking.tracker import NullTracker, Tracker


def start_run(
    config: TrackingConfig,
    *,
    folder: Path,
    name: str,
    run_key: str,
    parent: str | None = None,
    rank: int = 0,
    wait_s: float = 0.0,
) -> Tracker:
    """Open the run ``run_key``, or continue it: JSONL in ``folder``, and from there to MLflow.

    Args:
        config: where MLflow is; an unset ``uri`` means mlflow.db in the folder that ``folder`` lies in.
        folder: the run's own folder; ``tracking.jsonl`` is appended to.
        name: what people see; need not be unique.
        run_key: what makes the run one run, whatever restarts; unique in the experiment.
        parent: run key of the sweep that this run is a trial of.
        rank: of the worker; only the first worker records anything.
        wait_s: how long to wait until MLflow has the run, for one that others will look for.
    """
    if rank != 0:
        return NullTracker()
    identity = Identity(run_key, name, parent)
    delivery = Delivery(folder, config.at(folder.parent), identity) if config.enabled else None
    tracker = JsonlTracker(folder / FILE_NAME, run_key=run_key, name=name, parent=parent, delivery=delivery)
    if delivery is not None and wait_s:
        delivery.wait(wait_s)
    return tracker
