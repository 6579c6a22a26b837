"""A progress bar for people, drawn from the metrics that a run writes anyway."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from neurolm.tracking import Status


class ProgressBar:
    """A tracker that draws one bar: percent done, time left and the latest loss and validation score."""

    def __init__(self, name: str) -> None:
        is_terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=100,
            desc=f"{name:<10}",
            bar_format="{desc} {percentage:3.0f}%|{bar:24}| {elapsed}<{remaining}{postfix}",
            mininterval=0.2 if is_terminal else 15.0,
            file=sys.stderr,
        )
        self._shown: dict[str, float] = {}

    def params(self, values: Mapping[str, Any]) -> None:
        """Not shown."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Not shown."""

    def artifact(self, path: Path) -> None:
        """Not shown."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Move the bar."""
        for name, label in (("loss", "loss"), ("validation/score", "val score"), ("validation/loss", "val loss")):
            if name in values:
                self._shown[label] = values[name]
        if "progress" in values:
            self._bar.n = round(100 * values["progress"])
        self._bar.set_postfix({label: f"{value:.3f}" for label, value in self._shown.items()}, refresh=False)
        self._bar.update(0)

    def close(self, status: Status = "FINISHED") -> None:
        """Leave the finished bar on the screen."""
        self._bar.refresh()
        self._bar.close()
