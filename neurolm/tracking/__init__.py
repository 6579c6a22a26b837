"""What a run reports and where it goes: a local JSONL file, and from there to MLflow.

Training never waits for a tracking server and never fails with it. Every value is appended to ``tracking.jsonl``; a
thread (`neurolm.tracking.delivery`) reads that file and carries it to MLflow, and what MLflow has not got yet is known
by an offset beside it, so nothing is lost or told twice by a server or a process that dies.

A run is found again by its key (tag ``neurolm.run_key``), so a restarted process continues the MLflow run it had
instead of opening a second one. A trial names the key of its sweep and appears below it in the MLflow pages.
"""

from neurolm.tracking.delivery import Delivery
from neurolm.tracking.journal import FILE_NAME, JsonlTracker, read_curves
from neurolm.tracking.secrets import is_secret, without_secrets
from neurolm.tracking.settings import TrackingConfig
from neurolm.tracking.start import start_run
from neurolm.tracking.tracker import NullTracker, Status, TeeTracker, Tracker

__all__ = [
    "FILE_NAME",
    "Delivery",
    "JsonlTracker",
    "NullTracker",
    "Status",
    "TeeTracker",
    "Tracker",
    "TrackingConfig",
    "is_secret",
    "read_curves",
    "start_run",
    "without_secrets",
]
