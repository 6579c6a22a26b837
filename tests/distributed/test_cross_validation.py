"""What is run for which fold and seed, with steps that only pretend to train; the real ones are in tests/ray_jobs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from neurolm.baselines.braindecode_models import BraindecodeMissing
from neurolm.baselines.settings import BaselineRun
from neurolm.config import ConfigError, load
from neurolm.datasets.ingest import Step, plan_downstream, run_locally, write_store
from neurolm.distributed import cross_validation, fold_of_seed
from neurolm.distributed.cross_validation import cross_validate
from neurolm.distributed.fold_of_seed import FoldOfSeed
from neurolm.distributed.pipeline import read_pipeline
from neurolm.eeg.shards import Store, open_test_split
from neurolm.evaluation.predictions import Predictions
from neurolm.reports.baselines import baseline_digest
from neurolm.reports.evaluate import EvaluateRun
from neurolm.training.runs import load_run
from tests.reports.evaluated import write_evaluated

CONFIG = Path(__file__).parents[2] / "ray_jobs/configs/workload/cross_validate.yaml"
Done = list[tuple[str, str, int]]


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> Iterator[Done]:
    """Steps as they were run: step, folder of results below the cross-validation's, fold."""
    record: Done = []

    def preprocess(file: Path, values: dict[str, Any]) -> None:
        step = load(Step, file, values)
        if not (step.store / "manifest.json").exists():
            write_store(plan_downstream(step.data, step.store), step.store, run_locally)
            record.append(("preprocess", step.out.name, step.data.split.fold))

    def train(file: Path, values: dict[str, Any]) -> None:
        run = load_run(file, values)
        record.append((run.stage_name, f"{run.out.parent.name}/{run.out.name}", run.data.split.fold))
        folder = run.out / run.stage_name / "model"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(yaml.safe_dump({"tasks": ["workload"], "own_tasks": {}}))

    def evaluate(
        run: EvaluateRun | BaselineRun, below: str = ".", skill: float = 1.0, config_digest: str | None = None
    ) -> None:
        store = Store.open(run.store, open_test_split(Store.open(run.store).digest, f"evaluate {run.out}"))
        index = store.index("test")
        labels = np.array([("rest", "arithmetic").index(label) for label in index.label])
        odds = np.random.default_rng(run.seed).normal(size=len(index)) + skill * (2 * labels - 1)
        found = Predictions(
            task="workload",
            labels=("rest", "arithmetic"),
            positive_class=1,
            split="test",
            row=index.rows,
            recording=index.recording,
            subject=index.subject,
            start_s=index.start_s,
            label_index=labels,
            log_likelihoods=np.stack([-odds / 2, odds / 2], axis=1),
            greedy_valid=np.ones(len(index), dtype=bool),
        )
        assert run.tasks == ("workload",)
        write_evaluated(run.out / below, found, seed=run.seed, digest=store.digest, config_digest=config_digest)
        if below == ".":
            record.append(("evaluate", f"{run.out.parent.name}/{run.out.name}", run.data.split.fold))

    def baselines(file: Path, values: dict[str, Any]) -> None:
        run = load(BaselineRun, file, values)
        for name in run.baselines:
            evaluate(run, f"baselines/{name}", skill=0.0, config_digest=baseline_digest(run, name))
            record.append((name, f"{run.out.parent.name}/{run.out.name}", run.data.split.fold))

    monkeypatch.setattr(fold_of_seed, "preprocess_step", preprocess)
    monkeypatch.setattr(fold_of_seed, "evaluate", evaluate)
    trained = dict.fromkeys(("tokenizer", "pretrain", "instruct"), train)
    monkeypatch.setattr(fold_of_seed, "RUNNERS", trained | {"baselines": baselines})
    yield record


@pytest.fixture
def settings(tmp_path: Path, demo_recordings: Path) -> dict[str, Any]:
    return {
        "data.root": str(demo_recordings / "workload"),
        "out": str(tmp_path / "out"),
        "cross_validation.folds": 2,
        "cross_validation.seeds": [0, 1],
        "baselines.baselines": ["majority", "band_power", "ffcl"],  # which need no optional package
    }


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The shipped one without the optional step, and in this process, since its steps are pretended here."""
    values = yaml.safe_load(CONFIG.read_text()) | {"base": str(CONFIG.parent / "data.yaml")}
    values["steps"] = {name: str(CONFIG.parent / file) for name, file in values["steps"].items() if name != "tokenize"}
    values["cross_validation"]["concurrent_runs"] = 1
    path = tmp_path / "cross_validate.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_every_fold_and_seed_is_run_once_and_pooled(
    done: Done, config: Path, settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = cross_validate(config, settings).results
    runs = [(fold, seed) for fold in range(2) for seed in range(2)]
    for step in ("tokenizer", "pretrain", "instruct", "evaluate"):
        assert [one[1:] for one in done if one[0] == step] == [(f"fold-{f}/seed-{s}", f) for f, s in runs]
    assert [one for one in done if one[0] == "preprocess"] == [("preprocess", f"fold-{f}", f) for f in range(2)]
    stores = [Store.open(tmp_path / "out" / "folds" / f"fold-{fold}" / "store") for fold in range(2)]
    assert results["tasks"]["workload"]["num_windows"] == len(stores[0]) == len(stores[1])
    assert results["tasks"]["workload"]["num_subjects"] == stores[0].manifest.counts["num_subjects"]
    assert results["seeds"] == [0, 1]
    assert results["test_openings"] == 8, "by two seeds, each for the model and, in this test, three baselines apart"
    beside = results["cross_validation"]["baselines"]
    assert list(beside) == ["majority", "band_power", "ffcl"]
    assert beside["ffcl"]["ours_minus_theirs"]["workload"]["balanced_accuracy"]["difference"] > 0.1
    assert (tmp_path / "out" / "baselines" / "ffcl" / "seed-1" / "evaluation.html").is_file()
    assert "fold 2 of 2, seed 1" in capsys.readouterr().out

    done.clear()
    assert cross_validate(config, settings).results == results, "nothing is opened or trained again"
    assert not done
    cross_validate(config, settings | {"cross_validation.seeds": [0, 1, 2]})
    assert {folder for step, folder, _ in done if step == "evaluate"} == {"fold-0/seed-2", "fold-1/seed-2"}
    for changed, name in ({"instruct.epochs": 3}, "instruct.epochs"), ({"cross_validation.folds": 3}, "folds"):
        with pytest.raises(ConfigError, match=rf"begun with other settings \(.*{name}"):
            cross_validate(config, settings | changed)


def test_an_interrupted_run_goes_on(
    done: Done, config: Path, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = fold_of_seed.evaluate

    def die(run: EvaluateRun) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fold_of_seed, "evaluate", die)
        cross_validate(config, settings)
    assert not (tmp_path / "out" / "results.json").exists()
    monkeypatch.setattr(fold_of_seed, "evaluate", finish)
    cross_validate(config, settings)
    assert len([one for one in done if one[0] == "evaluate"]) == 4


def test_baselines_may_be_added_and_changed_later(done: Done, config: Path, settings: dict[str, Any]) -> None:
    alone = cross_validate(config, settings | {"baselines.baselines": ["majority"]}).results
    runs = {f"fold-{fold}/seed-{seed}" for fold in range(2) for seed in range(2)}
    for changed, fitted in (
        ({}, {"band_power", "ffcl"}),
        ({"baselines.training_of.ffcl.epochs": 7}, {"ffcl"}),
        ({"baselines.training_of.ffcl.epochs": 7}, set()),
    ):
        done.clear()
        results = cross_validate(config, settings | changed).results
        assert {(name, folder) for name, folder, _ in done} == {(name, folder) for name in fitted for folder in runs}
        assert results["tasks"] == alone["tasks"]
        assert list(results["cross_validation"]["baselines"]) == ["majority", "band_power", "ffcl"]
    assert results["test_openings"] == 4 + 4 + 2, "every fit of a baseline has opened its fold's test windows"


def test_stages_that_no_fold_changes_run_once_a_seed(
    done: Done, config: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    cross_validate(config, settings | {"data.pretraining_root": str(tmp_path)})
    for step in ("tokenizer", "pretrain"):
        assert {folder for name, folder, _ in done if name == step} == {"shared/seed-0", "shared/seed-1"}
    assert len([one for one in done if one[0] == "instruct"]) == 4
    begun = json.loads((tmp_path / "out" / "cross_validation.json").read_text())["settings"]
    assert begun["instruct.data.pretraining_root"] is True and "instruct.data.root" not in begun


def test_inner_folds_have_no_test_subject_in_any_store(
    done: Done, config: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    step = load(Step, CONFIG.parent / "data.yaml", {"data.root": settings["data.root"], "out": str(tmp_path)})
    write_store(plan_downstream(step.data, step.store), step.store, run_locally)
    plain = Store.open(step.store, open_test_split(Store.open(step.store).digest, "test"))
    tested = {str(subject) for subject in plain.index("test").subject}
    results = cross_validate(config, settings | {"cross_validation.within": "train_and_val"}).results
    answered = set(results["cross_validation"]["subjects"]["workload"])
    assert answered and not answered & tested
    assert answered == {str(subject) for split in ("train", "val") for subject in plain.index(split).subject}


def test_a_missing_package_is_heard_of_before_anything_is_trained(
    done: Done, config: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise BraindecodeMissing("pip install")

    monkeypatch.setattr(cross_validation, "braindecode_models", missing)
    with pytest.raises(BraindecodeMissing):
        cross_validate(config, settings | {"baselines.baselines": ["majority", "eegnet"]})
    assert not done


def test_what_cannot_be_cross_validated_is_refused(config: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"data\.split\.fold, .*: folds are set by cross_validation"):
        cross_validate(config, settings | {"data.split.folds": 3, "data.split.fold": 1})
    values = yaml.safe_load(config.read_text())
    del values["steps"]["evaluate"]
    config.write_text(yaml.safe_dump({name: value for name, value in values.items() if name != "evaluate"}))
    with pytest.raises(ConfigError, match="a cross-validation needs evaluate"):
        cross_validate(config, settings)


def test_windows_that_a_task_leaves_out_are_not_waited_for(done: Done, config: Path, settings: dict[str, Any]) -> None:
    cross_validate(config, settings)
    one = FoldOfSeed(config, settings, read_pipeline(config, settings)[0], fold=0, num_folds=2, seed=0)
    own = {"data_set": "workload", "question": "Busy?", "answers": {"no": "No", "yes": "Yes"}}
    tasks = {"busy": own | {"label_map": {"rest": None, "arithmetic": "yes"}}}
    model = one.folder / "instruct" / "model" / "config.yaml"
    model.write_text(yaml.safe_dump({"tasks": ["workload", "busy"], "own_tasks": tasks}))
    counts = Store.open(one.store).manifest.windows_by_label["workload"]
    assert one.num_windows() == {"workload": sum(counts.values()), "busy": counts["arithmetic"]}
