"""Progress bars for people: of a run, from the metrics that it writes anyway, and of anything that has a fraction."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from neurolm.tracking import Status


class Bar:
    """One bar: percent done, time left and the latest numbers. Where no terminal is, a line every 15 s at most."""

    def __init__(self, name: str) -> None:
        self._bar = tqdm(
            total=100,
            desc=f"{name:<10}",
            bar_format="{desc} {percentage:3.0f}%|{bar:24}| {elapsed}<{remaining}{postfix}",
            mininterval=0.2 if sys.stderr.isatty() else 15.0,
            file=sys.stderr,
        )

    def show(self, fraction: float | None, numbers: Mapping[str, str]) -> None:
        """Move the bar; None leaves it where it is."""
        if fraction is not None:
            self._bar.n = round(100 * fraction)
        self._bar.set_postfix(dict(numbers), refresh=False)
        self._bar.update(0)

    def close(self) -> None:
        """Leave the bar on the screen."""
        self._bar.refresh()
        self._bar.close()


class ProgressBar:
    """A tracker that draws a bar with the latest loss and validation score."""

    def __init__(self, name: str) -> None:
        self._bar = Bar(name)
        self._shown: dict[str, str] = {}

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
                self._shown[label] = f"{values[name]:.3f}"
        self._bar.show(values.get("progress"), self._shown)

    def close(self, status: Status = "FINISHED") -> None:
        """Leave the finished bar on the screen."""
        self._bar.close()
