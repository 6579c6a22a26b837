"""Optuna as a function: the next parameters of a sweep follow from what is on record, and from nothing else.

For every proposal the study is made anew, in memory, from the recorded trials and the notes that the sampler left on
them (Optuna's samplers keep all their state there), and the sampler gets a seed of its own from the sweep's seed and
the trial's number. So a sweep that was killed proposes what it would have proposed.
"""

import datetime
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState
from pydantic import Field

from neurolm.config import UserError, config
from neurolm.distributed.search_space import Space, draw, grid, misfits, stored
from neurolm.distributed.sweep_log import SweepState, Trial

logger = logging.getLogger(__name__)

Direction = Literal["max", "min"]
STUDY = "sweep"
"""Name of the study."""
STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@config
class SamplerConfig:
    """How parameters are proposed."""

    kind: Literal["tpe", "cma_es", "nsga2", "qmc", "grid", "random"] = "tpe"
    """Multivariate TPE, CMA-ES, NSGA-II, quasi-random points (scrambled Sobol), every point of a grid, or random ones.

    cma_es and qmc draw choices and conditional settings at random; nsga2 and tpe take them as they are.
    """
    startup_trials: Annotated[int, Field(ge=0)] = 10
    """tpe: trials that are drawn at random before the model of the others is asked."""
    population: Annotated[int, Field(gt=1)] | None = None
    """cma_es, nsga2: trials of a generation; null: Optuna's own for cma_es, a quarter of the trials for nsga2."""

    def describe(self, seed: int) -> str:
        """The sampler in words."""
        names = {
            "tpe": f"multivariate TPE after {self.startup_trials} random trials",
            "cma_es": "CMA-ES",
            "nsga2": "NSGA-II",
            "qmc": "quasi-random points (scrambled Sobol)",
            "grid": "every point of a grid",
            "random": "random points",
        }
        return f"{names[self.kind]}, seed {seed}"


@dataclass(frozen=True)
class Plan:
    """What proposals depend on beside what was recorded."""

    space: Space
    sampler: SamplerConfig
    seed: int
    directions: Mapping[str, Direction]
    """Objectives by name."""
    num_trials: int


@dataclass(frozen=True)
class Proposal:
    """The parameters of a trial that is about to begin."""

    parameters: dict[str, Any]
    notes: dict[str, Any]
    """What the sampler noted on the trial."""
    study_notes: dict[str, Any]
    """What it noted on the study."""


def propose(plan: Plan, state: SweepState, given: Mapping[str, Any] | None = None) -> Proposal:
    """Parameters of the next trial; ``given`` ones are taken as they are, and what they leave out is drawn."""
    storage = optuna.storages.InMemoryStorage()
    with quiet():
        study = study_of(plan, state, storage, _sampler(plan, len(state.trials)))
        if given is not None:
            study.enqueue_trial(stored(plan.space, given)[0])
        parameters = draw(plan.space, study.ask())
    noted = storage.get_study_system_attrs(storage.get_study_id_from_name(STUDY))
    return Proposal(
        parameters,
        notes=dict(study.trials[-1].system_attrs),
        study_notes={name: value for name, value in noted.items() if state.notes.get(name) != value},
    )


def study_of(
    plan: Plan, state: SweepState, storage: optuna.storages.BaseStorage, sampler: BaseSampler | None = None
) -> optuna.Study:
    """A study that holds what is learnt from earlier sweeps and all trials of this one."""
    study = optuna.create_study(study_name=STUDY, storage=storage, sampler=sampler, directions=directions_of(plan))
    study_id = storage.get_study_id_from_name(STUDY)
    for name, value in state.notes.items():
        storage.set_study_system_attr(study_id, name, value)
    for trial in [*learnt_trials(plan, state), *(frozen(plan, trial) for trial in state.trials)]:
        study.add_trial(trial)
    return study


def frozen(plan: Plan, trial: Trial) -> FrozenTrial:
    """A recorded trial as Optuna knows it: pruned ones are PRUNED at their last value, failed ones FAIL."""
    parameters, distributions = stored(plan.space, trial.parameters)
    made = optuna.trial.create_trial(
        state=TrialState.RUNNING if trial.state is None else STATES[trial.state],
        values=final_values(plan, trial),
        params=parameters,
        distributions=distributions,
        user_attrs=_user_attrs(trial),
        system_attrs=trial.notes,
        intermediate_values=_intermediate(plan, trial),
    )
    made.datetime_start = datetime.datetime.fromtimestamp(trial.began)
    if trial.ended is not None:
        made.datetime_complete = datetime.datetime.fromtimestamp(trial.ended)
    return made


def final_values(plan: Plan, trial: Trial) -> list[float] | None:
    """Objectives of an ended trial: of the weights it kept, or of the last validation where it was pruned."""
    if trial.state == "complete" and trial.kept is not None:
        return [trial.kept.objectives[name] for name in plan.directions]
    if trial.state == "pruned":
        return [trial.points[-1].objectives[name] for name in plan.directions]
    return None


def learnt_trials(plan: Plan, state: SweepState) -> list[FrozenTrial]:
    """Trials of earlier sweeps that the sampler is told."""
    return [
        optuna.trial.create_trial(
            values=[trial["objectives"][name] for name in plan.directions],
            **dict(zip(("params", "distributions"), stored(plan.space, trial["parameters"]), strict=True)),
            user_attrs={"origin": trial["origin"], "score": trial["score"]},
        )
        for trial in state.learnt
    ]


def importances(plan: Plan, state: SweepState) -> dict[str, float]:
    """How much each setting mattered (PED-ANOVA): to the objective, or with several of them to the mean score.

    Empty where there are too few trials to say.
    """
    target = None if len(plan.directions) == 1 else (lambda trial: trial.user_attrs["score"])
    try:
        with quiet():
            study = study_of(plan, state, optuna.storages.InMemoryStorage())
            found = optuna.importance.get_param_importances(study, target=target)
    except (ValueError, RuntimeError) as error:
        logger.info("no importances: %s", error)
        return {}
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def check_sampler(plan: Plan, num_first: int) -> None:
    """A sampler that cannot do what is asked fails before the first trial. Raises UserError."""
    if plan.sampler.kind == "cma_es":
        if len(plan.directions) > 1:
            raise UserError("sweep.sampler.kind: cma_es has one objective; use nsga2 or tpe for several")
        try:
            import cmaes  # noqa: F401
        except ImportError as error:
            raise UserError(
                f"sweep.sampler.kind: cma_es needs the package cmaes ({error}): pip install 'neurolm[cluster]'"
            ) from error
    if plan.sampler.kind == "grid":
        size = math.prod(len(values) for values in grid(plan.space).values())
        if plan.num_trials - num_first > size:
            raise UserError(
                f"sweep.num_trials: found {plan.num_trials}, but the grid has {size} points"
                + (f" and {num_first} trials are given" if num_first else "")
                + f"; set sweep.num_trials={size + num_first} or less"
            )


def check_given(plan: Plan, given: Sequence[Mapping[str, Any]], source: str) -> None:
    """Settings to try first are points of the space, whole ones for a grid. Raises UserError."""
    for place, parameters in enumerate(given):
        wrong = list(misfits(plan.space, parameters))
        if plan.sampler.kind == "grid" and set(parameters) != set(plan.space):
            wrong.append("a grid needs a value of every setting here")
        if wrong:
            raise UserError(f"{source}[{place}]: {'; '.join(wrong)}. Widen sweep.space, or change or drop the entry")


def _sampler(plan: Plan, number: int) -> BaseSampler:
    """The sampler of one trial. A sequence of points has one seed for all trials; others get a new one each."""
    own_seed = int(np.random.default_rng([plan.seed, number]).integers(2**31))
    settings = plan.sampler
    if settings.kind == "tpe":
        return optuna.samplers.TPESampler(
            n_startup_trials=settings.startup_trials, multivariate=True, group=True, seed=own_seed
        )
    if settings.kind == "cma_es":
        return optuna.samplers.CmaEsSampler(popsize=settings.population, seed=own_seed)
    if settings.kind == "nsga2":
        population = settings.population or max(4, plan.num_trials // 4)
        return optuna.samplers.NSGAIISampler(population_size=population, seed=own_seed)
    if settings.kind == "qmc":
        independent = optuna.samplers.RandomSampler(seed=own_seed)
        return optuna.samplers.QMCSampler(scramble=True, seed=plan.seed, independent_sampler=independent)
    if settings.kind == "grid":
        return optuna.samplers.GridSampler(grid(plan.space), seed=plan.seed)
    return optuna.samplers.RandomSampler(seed=own_seed)


def directions_of(plan: Plan) -> list[str]:
    """Optuna's words for the directions of the objectives."""
    return ["maximize" if direction == "max" else "minimize" for direction in plan.directions.values()]


def _intermediate(plan: Plan, trial: Trial) -> dict[int, float]:
    """The curve; Optuna knows none of several objectives, nor values that are no numbers."""
    if len(plan.directions) > 1:
        return {}
    (name,) = plan.directions
    values = {point.budget: point.objectives[name] for point in trial.points}
    return {budget: value for budget, value in values.items() if math.isfinite(value)}


def _user_attrs(trial: Trial) -> dict[str, Any]:
    attrs: dict[str, Any] = {"origin": trial.origin}
    if trial.points:
        attrs["budget"] = trial.points[-1].budget
    if trial.kept is not None:
        attrs["score"] = trial.kept.score
    return attrs | ({"reason": trial.reason} if trial.reason else {})


@contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's lines about every trial and its warnings of what is experimental."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)
