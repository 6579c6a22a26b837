"""What every job script does around its one call: arguments, the Ray session, and errors a person can act on."""

import logging
import os
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from neurolm.config import ConfigError, UserError, flatten, parse_overrides, read
from neurolm.training.stopping import EXIT_CODE, Stopped

PLACES = (
    "out", "data.root", "data.pretraining_root", "data.store", "data.pretraining_store", "data.token_store",
    "data.pretraining_token_store", "data.privacy.key_file",
    "tokenizer", "pretrained", "model", "corpus.path", "checkpoints.storage",
)  # fmt: skip
"""Settings that name a place outside the working directory."""

OWN_SESSION = "NEUROLM_OWN_RAY_SESSION"
"""Environment variable of a Ray session that a job started for itself: it never gets another machine."""

Main = Callable[[Path, dict[str, Any]], None]


def run_job(main: Main, usage: str, arguments: list[str] | None = None) -> None:
    """Parse ``CONFIG [dotted.name=value …]``, start or join Ray and call ``main``.

    A user's mistake exits with 2, a run that was stopped on request with 75.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage.strip())
        sys.exit(0 if arguments else 2)
    try:
        path, overrides = Path(arguments[0]), parse_overrides(arguments[1:])
        check_paths_under_job(read(path, overrides))
        with ray_session():
            main(path, overrides)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Stopped as stop:
        print(stop, file=sys.stderr)
        sys.exit(EXIT_CODE)


def is_under_job() -> bool:
    """Whether this process is the entrypoint of `ray job submit`."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def check_paths_under_job(values: dict[str, Any]) -> None:
    """A submitted job runs in a copy of the working directory: relative data or results would be lost with it.

    Raises:
        ConfigError: ``data.root``, ``data.pretraining_root`` or ``out`` is relative under a job.
    """
    if not is_under_job():
        return
    settings = flatten(values)
    for name in PLACES:
        place = settings.get(name)
        if place is not None and "://" not in str(place) and not Path(str(place)).is_absolute():
            raise ConfigError(
                f"{name}: found the relative path {str(place)!r}; a submitted job runs in a temporary copy of the "
                f"working directory, so give an absolute path or a URI: {name}=/absolute/path"
            )


def _announce_address(node_ip: str) -> None:
    """Choose the address of a session that is about to start, so that its processes need not look for it.

    Ray Train frees a stopped trial's share of the machine by asking the cluster, which its process looks for on
    this machine. Where a second Ray session runs it finds two and gives up, and the sweep waits for ever.
    """
    with socket.socket() as free:
        free.bind((node_ip, 0))
        port = free.getsockname()[1]
    os.environ["RAY_GCS_SERVER_PORT"] = str(port)
    os.environ["RAY_ADDRESS"] = f"{node_ip}:{port}"
    os.environ[OWN_SESSION] = "1"


@contextmanager
def ray_session() -> Iterator[None]:
    """Join the cluster that RAY_ADDRESS names, or start one on this machine for as long as the job runs.

    A local session switches token authentication on by itself; its dashboard listens on 127.0.0.1.
    """
    os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # Tune's own tables; the pipeline says what matters
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Two concurrent trials are a dozen small processes: no reason to start them two by two, and to warn of each two.
    os.environ.setdefault("RAY_worker_maximum_startup_concurrency", "8")
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="ray")
    import ray
    import ray.data

    show_logs = os.environ.get("NEUROLM_WORKER_LOGS") == "1"
    was_running = ray.is_initialized()
    starts_own = not was_running and not os.environ.get("RAY_ADDRESS")
    if starts_own:
        _announce_address(ray.util.get_node_ip_address())
    try:
        if not was_running:
            ray.init(address="local" if starts_own else None, logging_level="WARNING", log_to_driver=show_logs)
        for name in ("ray.data", "ray.tune", "ray.train"):
            logging.getLogger(name).setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield
    finally:
        if not was_running:
            ray.shutdown()
        if starts_own:
            for name in ("RAY_GCS_SERVER_PORT", "RAY_ADDRESS", OWN_SESSION):
                del os.environ[name]
