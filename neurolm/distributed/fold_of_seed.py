"""One fold of a cross-validation with one seed: a pipeline with a split, a store and a folder of its own."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from neurolm.baselines.settings import BaselineRun
from neurolm.config import flatten, load, read
from neurolm.datasets.ingest import Step
from neurolm.distributed.pipeline import RUNNERS, STEPS, PipelineConfig, preprocess_step, read_pipeline, say
from neurolm.eeg.shards import Store
from neurolm.reports.baselines import unanswered
from neurolm.reports.cross_validation import FoldRun
from neurolm.reports.evaluate import EvaluateRun, evaluate
from neurolm.text.instructions import Task, chosen_tasks
from neurolm.training.tasks import own_tasks_of_model

ALIKE = ("tokenizer", "tokenize", "pretrain")
"""Steps that are the same in every fold where stages 1 and 2 learn from a store of their own: run once for a seed."""

Steps = Mapping[str, tuple[Path, dict[str, Any]]]
"""Name to its config file and dotted settings."""


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
        """Train, then open the fold's test windows once; None where no task has any. Fit the baselines it lacks."""
        started = time.perf_counter()
        say(f"fold {self.fold + 1} of {self.num_folds}, seed {self.seed}  {self.folder}")
        alike = self.prepare()
        if alike is None:
            return None
        steps = self.steps(self.folder, alike)
        if (finished := FoldRun.load(self.folder)) is not None:
            self._fit_baselines(steps, finished.scores)
            return finished
        apart = ("preprocess", "evaluate", "baselines") + (("tokenizer", "pretrain") if alike else ())
        _run_steps([step for step in steps if step not in apart], steps)
        file, values = steps["evaluate"]
        if not (tested := self._tested(values.get("tasks"))):
            return None
        self._fit_baselines(steps, tested)
        evaluate(load(EvaluateRun, file, values | {"tasks": tested}))
        run = FoldRun.of(self.pipeline.out, self.folder, self.fold, self.seed, time.perf_counter() - started)
        run.save(self.pipeline.out)
        return run

    def is_left(self) -> bool:
        """Whether anything of it is still to be run."""
        finished = FoldRun.load(self.folder)
        return finished is None or bool(_baselines_left(self.steps(self.folder), finished.data_digest))

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

    def _fit_baselines(self, steps: Steps, tested: Iterable[str]) -> None:
        if left := _baselines_left(steps, Store.open(self.store).digest):
            file, values = steps["baselines"]
            asked = {"baselines": left, "tasks": list(tested), "own_tasks": self._model["own_tasks"]}
            RUNNERS["baselines"](file, values | asked)

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


def _baselines_left(steps: Steps, data_digest: str) -> tuple[str, ...]:
    return unanswered(load(BaselineRun, *steps["baselines"]), data_digest) if "baselines" in steps else ()


def _run_steps(names: Sequence[str], steps: Steps) -> None:
    for name in STEPS:
        if name in names:
            RUNNERS[name](*steps[name])
