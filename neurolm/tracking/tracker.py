"""Where a run reports to: the protocol that training knows, and its compositions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

Status = Literal["FINISHED", "FAILED", "KILLED"]
"""MLflow's words for how a run ended."""


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
