"""Cross-validation: a pipeline for every fold and seed, its answers pooled, every run listed.

A fold is a split of its own (`data.split.fold`), with a store in which its subjects are the sealed test split; seeds
share it. Whatever a run chooses, it chooses on the fold's validation subjects. Finished runs are not run again, but
baselines that they lack are fitted: which those are is no part of what the runs are runs of.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from neurolm.baselines.braindecode_models import braindecode_models
from neurolm.baselines.networks import NETWORKS
from neurolm.baselines.settings import BaselineRun
from neurolm.config import ConfigError, UserError, digest, flatten, load, read
from neurolm.datasets.assignment import count_folds
from neurolm.datasets.ingest import Step
from neurolm.datasets.plan import find_downstream
from neurolm.distributed.at_once import run_at_once
from neurolm.distributed.fold_of_seed import FoldOfSeed, Steps
from neurolm.distributed.pipeline import PipelineConfig, read_pipeline, write_synthetic
from neurolm.eeg.sealing import count_openings
from neurolm.reports.baseline_table import FOLDER
from neurolm.reports.cross_validation import FoldRun, Plan, cross_validation_results, pool_runs
from neurolm.reports.cross_validation_page import write_cross_validation_pages
from neurolm.reports.results import results_table, write_whole

FROZEN = "cross_validation.json"
"""What the runs of a folder are runs of; another config is refused there."""
PLACES = ("out", "seed", "workers", "tracking", "resources", "budget")
DATA_PLACES = ("root", "store", "pretraining_store", "token_store", "pretraining_token_store", "privacy")
"""Settings that say where and on what a run is made, and not what it is."""


@dataclass(frozen=True)
class CrossValidated:
    """What was written where."""

    results: dict[str, Any]
    page: Path


def cross_validate(path: Path, overrides: Mapping[str, Any]) -> CrossValidated:
    """Run what is not finished of every fold and seed, then pool; no test score is told before. Raises UserError."""
    started = time.perf_counter()
    pipeline, steps = read_pipeline(path, overrides)
    _refuse_incomplete(path, steps)
    write_synthetic(pipeline, steps)
    num_folds = _num_folds(pipeline, steps)
    frozen = _freeze(pipeline, steps)
    seeds = pipeline.cross_validation.seeds
    wanted = [
        FoldOfSeed(path, overrides, pipeline, fold, num_folds, seed) for fold in range(num_folds) for seed in seeds
    ]
    found = _run_all(wanted, pipeline.cross_validation.concurrent_runs)
    runs = [run for run in found if run is not None]
    empty = [fold for fold in range(num_folds) if fold not in {run.fold for run in runs}]
    if not runs:
        raise UserError(f"{pipeline.out}: no fold has a usable recording to test; see what is in quarantine above")
    known = FoldOfSeed(path, overrides, pipeline, runs[0].fold, num_folds, runs[0].seed)
    plan = Plan(pipeline.out, num_folds, pipeline.cross_validation.within, frozen, known.num_windows())
    pooled = pool_runs(plan, runs, pipeline.out)
    names: tuple[str, ...] = load(BaselineRun, *steps["baselines"]).baselines if "baselines" in steps else ()
    baselines = {name: pool_runs(plan, runs, pipeline.out / FOLDER / name, f"{FOLDER}/{name}") for name in names}
    openings = max(max(run.test_openings, count_openings(run.data_digest)) for run in runs)
    results = cross_validation_results(plan, runs, pooled, baselines, openings)
    num_classes = {name: len(answers.labels) for name, answers in pooled[0].predictions.items()}
    page, text = write_cross_validation_pages(pipeline.out, results, [one.results for one in pooled], num_classes)
    print(results_table(results, num_classes))
    for fold in empty:
        print(f"fold {fold} has no usable recording to test and was left out")
    print(f"finished in {(time.perf_counter() - started) / 60:.1f} minutes\n  page  {page}\n  text  {text}")
    return CrossValidated(results, page)


def _run_all(wanted: Sequence[FoldOfSeed], at_once: int) -> list[FoldRun | None]:
    """Every run, those that were finished before as they were; None where a fold has nobody to test."""
    found = {(one.fold, one.seed): FoldRun.load(one.folder) for one in wanted}
    left = [one for one in wanted if one.is_left()]
    if at_once == 1:
        ended = [one.run() for one in left]
    else:
        left = [one for one in left if one.prepare() is not None]  # here, since two runs must not do it both
        ended = run_at_once([one.run for one in left], at_once, "folds")
    found |= {(one.fold, one.seed): run for one, run in zip(left, ended, strict=True)}
    return list(found.values())


def _refuse_incomplete(path: Path, steps: Steps) -> None:
    if "evaluate" not in steps or not {"instruct", "tune"} & set(steps):
        raise ConfigError(f"{path}: steps: a cross-validation needs evaluate, and instruct or tune before it")
    set_here = {"data.split.folds", "data.split.fold", "data.split.within"}
    if given := sorted(set_here & set(steps["preprocess"][1])):
        raise ConfigError(f"{path}: {', '.join(given)}: folds are set by cross_validation.folds; leave it out")
    if "baselines" in steps:
        chosen = load(BaselineRun, *steps["baselines"]).baselines
        if any(name in NETWORKS and "braindecode" in NETWORKS[name].source for name in chosen):
            braindecode_models()  # raises where it is not installed, and not after the first fold was trained


def _num_folds(pipeline: PipelineConfig, steps: Steps) -> int:
    data = load(Step, *steps["preprocess"]).data
    about = pipeline.cross_validation
    return count_folds(find_downstream(data), replace(data.split, folds=about.folds, within=about.within))


def _freeze(pipeline: PipelineConfig, steps: Steps) -> str:
    """A folder holds the runs of one config; returns its digest, over all settings but seeds, places and baselines.

    Raises:
        ConfigError: the folder was begun with other settings, which are named.
    """
    about = pipeline.cross_validation
    settings: dict[str, Any] = {"cross_validation.folds": about.folds, "cross_validation.within": about.within}
    for name, (file, values) in steps.items():
        if name == "baselines":
            continue  # every one has its own digest
        plain = {key: value for key, value in read(file, values).items() if key not in PLACES}
        data = {key: value for key, value in (plain.pop("data", None) or {}).items() if key not in DATA_PLACES}
        data["pretraining_root"] = data.get("pretraining_root") is not None
        flat = flatten({name: plain | {"data": data}})
        settings |= {key: value for key, value in flat.items() if not key.endswith((".folder", ".declaration.file"))}
    settings = json.loads(json.dumps(settings, default=str))
    path = pipeline.out / FROZEN
    if path.is_file():
        begun = json.loads(path.read_text())["settings"]
        if changed := sorted(key for key in {*begun, *settings} if begun.get(key) != settings.get(key)):
            raise ConfigError(
                f"{pipeline.out}: this cross-validation was begun with other settings ({', '.join(changed)}); use "
                "another out, so that every config's runs stay listed"
            )
    frozen = digest(settings)
    write_whole(path, json.dumps({"config_digest": frozen, "settings": settings}, indent=1) + "\n")
    return frozen
