"""What a sweep takes over from earlier ones: settings to try first, and finished trials that the sampler is told."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neurolm.config import UserError
from neurolm.distributed.search_space import Space, misfits
from neurolm.distributed.sweep_config import TuneRun, WarmStart
from neurolm.reports.sweep import SweepRecord, TrialRecord

logger = logging.getLogger(__name__)


def given_first(run: TuneRun) -> list[dict[str, Any]]:
    """``parameters`` and ``origin`` of the trials to make first: the config's own, then earlier sweeps' best.

    Raises:
        UserError: an earlier sweep cannot be read, or its best settings are outside this one's space.
    """
    given = [{"parameters": dict(one), "origin": "first"} for one in run.sweep.first]
    for start in run.sweep.warm_starts:
        path, record = _read(start)
        for trial in _best(record)[: start.best]:
            parameters = {name: value for name, value in trial.parameters.items() if name in run.sweep.space}
            if wrong := list(misfits(run.sweep.space, parameters)):
                raise UserError(
                    f"{path}: trial {trial.number} is one of its {start.best} best, but here {'; '.join(wrong)}. "
                    "Widen sweep.space, or take fewer of its best (sweep.warm_starts.best)"
                )
            if parameters not in [one["parameters"] for one in given]:
                given.append({"parameters": parameters, "origin": _origin(path, trial)})
    return given


def learnt(run: TuneRun, metric: str, full_budget: int) -> list[dict[str, Any]]:
    """Finished trials of earlier sweeps that the sampler is told.

    Raises:
        UserError: an earlier sweep cannot be read, or had another objective, data or budget.
    """
    told: list[dict[str, Any]] = []
    for start in run.sweep.warm_starts:
        if not start.learn:
            continue
        path, record = _read(start)
        here = {"objective": metric, "full budget": float(full_budget), "directions": run.directions}
        there = {"objective": record.metric, "full budget": record.budget, "directions": record.directions}
        if differs := [name for name in here if here[name] != there[name]]:
            raise UserError(
                f"{path}: its {differs[0]} is {there[differs[0]]}, here it is {here[differs[0]]}; values cannot be "
                "compared. Set learn: false in sweep.warm_starts, its best settings can still be tried"
            )
        finished = [trial for trial in record.trials if trial.state == "complete" and trial.best_value is not None]
        fit = [trial for trial in finished if _fits(run.sweep.space, trial.parameters)]
        if len(fit) < len(finished):
            logger.warning("%s: %d of %d trials are outside this space", path, len(finished) - len(fit), len(finished))
        told += [
            {
                "parameters": trial.parameters,
                "objectives": trial.objectives,
                "score": trial.best_value,
                "origin": _origin(path, trial),
            }
            for trial in fit
        ]
    return told


def _read(start: WarmStart) -> tuple[Path, SweepRecord]:
    places = [start.sweep, start.sweep / "sweep.json", start.sweep / "tune" / "sweep.json"]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise UserError(
            f"sweep.warm_starts: {start.sweep} holds no finished sweep (no sweep.json or tune/sweep.json); give the "
            "out of a sweep that has ended"
        )
    return path, SweepRecord.load(path)


def _best(record: SweepRecord) -> list[TrialRecord]:
    finished = [trial for trial in record.trials if trial.state == "complete" and trial.best_value is not None]
    sign = 1 if record.mode == "max" else -1
    return sorted(finished, key=lambda trial: -sign * (trial.best_value or 0.0))


def _fits(space: Space, parameters: Mapping[str, Any]) -> bool:
    return not list(misfits(space, parameters)) and set(parameters) <= set(space)


def _origin(path: Path, trial: TrialRecord) -> str:
    return f"trial {trial.number} of {path}"
