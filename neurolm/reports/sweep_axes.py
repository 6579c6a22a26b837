"""Where a setting's values lie on a chart: along a line, along a logarithmic one, or as kinds side by side."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neurolm.reports.charts import Scale, number
from neurolm.reports.sweep import SweepRecord, TrialRecord


@dataclass(frozen=True)
class Axis:
    """One setting's axis, in pixels."""

    name: str
    scale: Scale
    kinds: tuple[str, ...] | None
    """The values themselves where they are a choice; None where they are numbers on a line."""

    @classmethod
    def of(cls, sweep: SweepRecord, name: str, start: float, end: float) -> "Axis | None":
        """The axis that holds all values tried of a setting; None where no trial has one."""
        values = [trial.parameters[name] for trial in sweep.trials if name in trial.parameters]
        if not values:
            return None
        source = sweep.space.get(name, "")
        if source.startswith("choice") or not all(_is_number(value) for value in values):
            distinct = {value_text(value): value for value in values}
            ordered = sorted(distinct.items(), key=lambda item: (not _is_number(item[1]), _order(item[1])))
            kinds = tuple(text for text, _ in ordered)
            return cls(name, Scale(-0.5, len(kinds) - 0.5, start, end), kinds)
        is_log = source.startswith("log") and min(values) > 0
        return cls(name, Scale.around([float(value) for value in values], start, end, is_log=is_log), None)

    @property
    def title(self) -> str:
        """The setting's name, or the last part of a long one."""
        return self.name if len(self.name) <= 34 else self.name.rpartition(".")[2]

    def at(self, trial: TrialRecord) -> float | None:
        """A trial's place in pixels; None where it has no such setting."""
        if self.name not in trial.parameters:
            return None
        value = trial.parameters[self.name]
        return self.scale(float(self.kinds.index(value_text(value))) if self.kinds else float(value))

    def unit(self, pixel: float) -> float:
        """A place as a share of the axis, or with kinds 1 apart: a distance in which settings are alike."""
        share = (pixel - self.scale.start) / (self.scale.end - self.scale.start)
        return share * len(self.kinds) if self.kinds else share

    def ticks(self, most: int = 6) -> list[tuple[float, str]]:
        """Values on the axis and how they read."""
        if self.kinds:
            return [(float(place), _short(kind)) for place, kind in enumerate(self.kinds)]
        return [(value, number(value)) for value in self.scale.ticks(most)]

    def cells(self, most: int) -> list[tuple[float, float]]:
        """The axis cut into pieces from pixel to pixel: one a kind, or so many equal ones."""
        count = len(self.kinds) if self.kinds else most
        step = (self.scale.end - self.scale.start) / count
        return [(self.scale.start + place * step, self.scale.start + (place + 1) * step) for place in range(count)]


def value_text(value: Any) -> str:
    """A setting's value as people write it."""
    if _is_number(value):
        return number(value)
    return value if isinstance(value, str) else json.dumps(value, default=str)


def setting_text(parameters: Mapping[str, Any], name: str) -> str:
    """A trial's value of a setting, or a dash where it has none."""
    return value_text(parameters[name]) if name in parameters else "-"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _order(value: Any) -> Any:
    return float(value) if _is_number(value) else str(value)


def _short(text: str) -> str:
    return text if len(text) <= 14 else f"{text[:13]}…"
