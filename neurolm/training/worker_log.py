"""What the workers of a run say: warnings on the terminal, and JSON lines in the run's folder, one file a worker."""

import json
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neurolm.tracking import Status

FOLDER = "logs"

logger = logging.getLogger(__name__)


class WorkerLog:
    """Writes all that neurolm logs in this process to ``logs/worker-00000.jsonl`` below the run's folder.

    A line has time, level, rank, step, run, event and message. It is a tracker, so that it knows the last step that was
    recorded and tells validations and checkpoints; ``close`` gives the loggers back.

    Args:
        folder: the run's.
        run: its id.
        rank: of this worker.
        world_size: number of workers.
    """

    def __init__(self, folder: Path, run: str, rank: int, world_size: int) -> None:
        path = folder / FOLDER / f"worker-{rank:05d}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = _JsonLines(run, rank)
        self._lines = lines
        self._handlers: list[logging.Handler] = [logging.FileHandler(path)]
        self._handlers[0].setFormatter(lines)
        if not logging.getLogger().hasHandlers():
            people = logging.StreamHandler(sys.stderr)
            people.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s worker {rank}: %(message)s", "%H:%M:%S"))
            people.setLevel(logging.WARNING)
            self._handlers.append(people)
        self._logger = logging.getLogger("neurolm")
        self._level = self._logger.level
        self._logger.setLevel(logging.INFO)
        for handler in self._handlers:
            self._logger.addHandler(handler)
        logger.info("worker %d of %d begins", rank, world_size, extra={"event": "start"})

    def params(self, values: Mapping[str, Any]) -> None:
        """Not told."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Not told."""

    def artifact(self, path: Path) -> None:
        """Not told."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Know the step; tell validations and checkpoints."""
        self._lines.step = step
        found = {name: value for name, value in values.items() if name.startswith("validation/")}
        if found:
            text = ", ".join(f"{name.removeprefix('validation/')} {value:.5g}" for name, value in found.items())
            logger.info("validation after step %d: %s", step, text, extra={"event": "validation"})
        if "checkpoint" in values:
            logger.info("checkpoint of step %d", step, extra={"event": "checkpoint"})

    def close(self, status: Status = "FINISHED") -> None:
        """Tell how the run ended, with the exception that ends it, and stop."""
        error = sys.exc_info()[1]
        reason = f": {type(error).__name__}: {error}" if error is not None else ""
        level = logging.INFO if status == "FINISHED" else logging.ERROR
        logger.log(level, "worker ends, %s%s", status, reason, extra={"event": "end"})
        for handler in self._handlers:
            self._logger.removeHandler(handler)
            handler.close()
        self._logger.setLevel(self._level)


class _JsonLines(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, run: str, rank: int) -> None:
        super().__init__()
        self._run, self._rank = run, rank
        self.step: int | None = None

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        return json.dumps(
            {
                "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
                "level": record.levelname,
                "rank": self._rank,
                "step": self.step,
                "run": self._run,
                "event": getattr(record, "event", "log"),
                "message": record.getMessage(),
            }
        )
