"""A sweep without Ray and without training: trials whose curves are formulas of their parameters."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from neurolm.config import UserError, build
from neurolm.distributed.pruning import PruningConfig, look_budgets
from neurolm.distributed.search_space import Distribution
from neurolm.distributed.study import Plan, SamplerConfig
from neurolm.distributed.sweep_course import Course
from neurolm.distributed.sweep_log import FILE_NAME, Point, Trial
from neurolm.training.keeping import Keep

FULL, VALIDATIONS = 1000, 4
SPACES: dict[str, dict[str, Any]] = {
    "plain": {
        "rate": {"log_uniform": [1e-5, 1e-1]},
        "decay": {"uniform": [0.0, 0.2]},
        "size": {"choice": [16, 32, 64]},
    },
    "numbers": {"rate": {"log_uniform": [1e-5, 1e-1]}, "decay": {"uniform": [0.0, 0.2]}},
    "conditional": {
        "rate": {"log_uniform": [1e-5, 1e-1]},
        "lora": {"choice": [None, {}]},
        "lora.rank": {"log_integer": [2, 32], "when": {"lora": [{}]}},
        "decay": {"uniform": [0.0, 0.2], "when": {"lora": [None]}},
    },
    "grid": {"decay": {"choice": [0.0, 0.1, 0.2]}, "size": {"choice": [16, 32, 64]}},
}


def make_plan(kind: str, space: str = "plain", num_trials: int = 9, **changes: Any) -> Plan:
    distributions = {name: build(Distribution, one, source="test") for name, one in SPACES[space].items()}
    sampler = SamplerConfig(kind=kind, startup_trials=3, population=4)  # type: ignore[arg-type]
    return Plan(**{
        "space": distributions, "sampler": sampler, "seed": 5, "directions": {"score": "max"}, "num_trials": num_trials
    } | changes)  # fmt: skip


def open_course(folder: Path, plan: Plan, pruning: PruningConfig | None = None, keep: Keep = "best") -> Course:
    rule = pruning or PruningConfig(kind="asha", grace=0.25, reduction_factor=2)
    course = Course(folder, plan, rule, look_budgets(rule, FULL, FULL / VALIDATIONS), full_budget)
    course.begin([], [], keep)
    return course


def full_budget(parameters: Mapping[str, Any]) -> int:
    """A size of 64 is too large once the decay is large, as when settings do not go together."""
    if parameters.get("size") == 64 and parameters["decay"] > 0.15:
        raise UserError("batch.size 64 does not go with such a decay")
    return FULL


def curve(parameters: Mapping[str, Any], objectives: Mapping[str, Any]) -> Iterator[Point]:
    """Better near a rate of 1e-3 and a small decay; broken where the rate is very large."""
    away = math.log10(parameters.get("rate", 1e-3)) + 3
    height = 1 / (1 + away**2) - parameters.get("decay", 0.05) + 0.001 * parameters.get("lora.rank", 0)
    for number in range(1, VALIDATIONS + 1):
        score = height * (1 - 0.5**number) if away < 1.5 or number < 2 else math.nan
        values = {name: score if place == 0 else -score + height for place, name in enumerate(objectives)}
        yield Point(number, FULL * number // VALIDATIONS, score, values, {"task": score})


def train(course: Course, plan: Plan, trial: Trial) -> None:
    """One trial to its end; after a restart all its validations are heard again."""
    for point in curve(trial.parameters, plan.directions):
        if course.hear(trial.number, [point]).state is not None:
            return
    course.end(trial.number, "complete")


def run(course: Course, plan: Plan) -> Course:
    """What is left of a sweep, one trial at a time."""
    for trial in course.state.unfinished:
        train(course, plan, trial)
    while (new := course.new_trial()) is not None:
        train(course, plan, new)
    return course


def history(folder: Path) -> list[dict[str, Any]]:
    """All events but for when they happened."""
    events = [json.loads(line) for line in (folder / FILE_NAME).read_text().splitlines()]
    return [{name: value for name, value in event.items() if name != "time"} for event in events]
