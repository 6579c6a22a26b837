"""Cross-validation: a pipeline for every fold and seed, its answers pooled, every run listed.

A fold is a split of its own (`data.split.fold`), with a store in which its subjects are the sealed test split; seeds
share it. Whatever a run chooses, it chooses on the fold's validation subjects. Finished runs are not run again.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from neurolm.baselines.braindecode_models import braindecode_models
from neurolm.baselines.networks import NETWORKS
from neurolm.baselines.settings import BaselineRun
from neurolm.config import ConfigError, UserError, digest, flatten, load, read
from neurolm.datasets.assignment import count_folds
from neurolm.datasets.ingest import Step
from neurolm.datasets.plan import find_downstream
from neurolm.distributed.at_once import run_at_once
from neurolm.distributed.pipeline import (
    RUNNERS,
    STEPS,
    PipelineConfig,
    preprocess_step,
    read_pipeline,
    say,
    write_synthetic,
)
from neurolm.eeg.sealing import count_openings
from neurolm.eeg.shards import Store
from neurolm.reports.baseline_table import FOLDER
from neurolm.reports.cross_validation import FoldRun, Plan, cross_validation_results, pool_runs
from neurolm.reports.cross_validation_page import write_cross_validation_pages
from neurolm.reports.evaluate import EvaluateRun, evaluate
from neurolm.reports.results import results_table, write_whole
from neurolm.text.instructions import Task, chosen_tasks
from neurolm.training.tasks import own_tasks_of_model

FROZEN = "cross_validation.json"
"""What the runs of a folder are runs of; another config is refused there."""
PLACES = ("out", "seed", "workers", "tracking", "resources", "budget")
DATA_PLACES = ("root", "store", "pretraining_store", "token_store", "pretraining_token_store", "privacy")
"""Settings that say where and on what a run is made, and not what it is."""
ALIKE = ("tokenizer", "tokenize", "pretrain")
"""Steps that are the same in every fold where stages 1 and 2 learn from a store of their own: run once for a seed."""

Steps = Mapping[str, tuple[Path, dict[str, Any]]]


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


@dataclass(frozen=True)
class FoldOfSeed:
    """One fold with one seed: a pipeline in a folder of its own."""

    path: Path
    overrides: Mapping[str, Any]
    pipeline: PipelineConfig
    fold: int
    num_folds: int
    seed: int

    @property
    def store(self) -> Path:
        """The fold's store, which all seeds share."""
        return self.folder.parent / "store"

    @property
    def folder(self) -> Path:
        """Where this run writes."""
        return self.pipeline.out / "folds" / f"fold-{self.fold}" / f"seed-{self.seed}"

    def run(self) -> FoldRun | None:
        """Train, then open the fold's test windows once; None where no task has any."""
        started = time.perf_counter()
        say(f"fold {self.fold + 1} of {self.num_folds}, seed {self.seed}  {self.folder}")
        alike = self.prepare()
        if alike is None:
            return None
        steps = self.steps(self.folder, alike)
        apart = ("preprocess", "evaluate", "baselines") + (("tokenizer", "pretrain") if alike else ())
        _run_steps([step for step in steps if step not in apart], steps)
        file, values = steps["evaluate"]
        if not (tested := self._tested(values.get("tasks"))):
            return None
        if "baselines" in steps:
            own_file, own_values = steps["baselines"]
            RUNNERS["baselines"](own_file, own_values | {"tasks": tested, "own_tasks": self._model["own_tasks"]})
        evaluate(load(EvaluateRun, file, values | {"tasks": tested}))
        run = FoldRun.of(self.pipeline.out, self.folder, self.fold, self.seed, time.perf_counter() - started)
        run.save(self.pipeline.out)
        return run

    def prepare(self) -> dict[str, Any] | None:
        """Do what runs share, unless it was done; settings that say where it lies, None where nobody is tested."""
        preprocess_step(*self.steps(self.folder.parent)["preprocess"])
        if not Store.open(self.store).manifest.windows_by_split.get("test"):
            return None
        return self._run_alike()

    def steps(self, out: Path, settings: Mapping[str, Any] | None = None) -> Steps:
        """The pipeline's steps with this fold's split, writing to ``out``."""
        whole = self.pipeline.out
        split = self.pipeline.cross_validation
        places: dict[str, Any] = {
            "out": str(out),
            "seed": self.seed,
            "data.store": str(self.store),
            "data.split.folds": split.folds,
            "data.split.fold": self.fold,
            "data.split.within": split.within,
        }
        given = flatten(read(self.path, self.overrides))
        if given.get("data.pretraining_root") is not None and given.get("data.pretraining_store") is None:
            places["data.pretraining_store"] = str(whole / "pretraining_store")
        if given.get("tracking.uri") is None:
            places["tracking.uri"] = f"sqlite:///{whole.absolute() / 'mlflow.db'}"
        return read_pipeline(self.path, {**self.overrides, **places, **(settings or {})})[1]

    def num_windows(self) -> dict[str, int]:
        """The windows that every task is asked about, in whatever split."""
        by_label = Store.open(self.store).manifest.windows_by_label
        return {
            task.name: sum(
                count for label, count in by_label.get(task.data_set, {}).items() if label not in task.left_out
            )
            for task in self._tasks()
        }

    def _run_alike(self) -> dict[str, Any]:
        """Run what no fold changes, once for the seed, and say where it lies; nothing where the folds change all."""
        shared = self.pipeline.out / "shared" / f"seed-{self.seed}"
        first = replace(self, fold=0).steps(shared)
        if not load(Step, *first["preprocess"]).has_pretraining_data or "pretrain" not in first:
            return {}
        _run_steps([step for step in ALIKE if step in first], first)
        where: dict[str, Any] = {"data.pretraining_token_store": str(shared / "pretraining_token_store")}
        if "tokenize" in first:
            where["tokenize.tokenizer"] = str(shared / "tokenizer" / "model")
        if "baselines" in first:
            where["baselines.tokenizer"] = str(shared / "tokenizer" / "model")
        readers = [step for step in ("instruct", "tune", "baselines") if step in first]
        return where | {f"{step}.pretrained": str(shared / "pretrain" / "model") for step in readers}

    @property
    def _model(self) -> dict[str, Any]:
        """What the tuned model's folder says about it."""
        found: dict[str, Any] = yaml.safe_load((self.folder / "instruct" / "model" / "config.yaml").read_text())
        return found

    def _tasks(self) -> list[Task]:
        """The tasks that the model was tuned on."""
        return chosen_tasks(self._model["tasks"], own_tasks_of_model(self._model))

    def _tested(self, wanted: Sequence[str] | None) -> list[str]:
        """Those of them that somebody is tested on in this fold."""
        sets = Store.open(self.store).manifest.data_sets
        tasks = [task for task in self._tasks() if wanted is None or task.name in wanted]
        return [task.name for task in tasks if sets[task.data_set]["windows_by_split"].get("test")]


def _run_all(wanted: Sequence[FoldOfSeed], at_once: int) -> list[FoldRun | None]:
    """Every run that was not finished before; None where a fold has nobody to test."""
    found = {(one.fold, one.seed): FoldRun.load(one.folder) for one in wanted}
    left = [one for one in wanted if found[one.fold, one.seed] is None]
    if at_once == 1:
        ended = [one.run() for one in left]
    else:
        left = [one for one in left if one.prepare() is not None]  # here, since two runs must not do it both
        ended = run_at_once([one.run for one in left], at_once, "folds")
    found |= {(one.fold, one.seed): run for one, run in zip(left, ended, strict=True)}
    return list(found.values())


def _run_steps(names: Sequence[str], steps: Steps) -> None:
    for name in STEPS:
        if name in names:
            RUNNERS[name](*steps[name])


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
    """A folder holds the runs of one config; returns its digest, over all settings but seeds and places.

    Raises:
        ConfigError: the folder was begun with other settings, which are named.
    """
    about = pipeline.cross_validation
    settings: dict[str, Any] = {"cross_validation.folds": about.folds, "cross_validation.within": about.within}
    for name, (file, values) in steps.items():
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
