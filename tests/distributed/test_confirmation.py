"""Fresh seeds for the best setting and the one it has to beat: which runs, which scores, which model is kept."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from neurolm.config import override
from neurolm.distributed.confirmation import (
    confirm,
    fresh_seeds,
    jobs_of,
    keep_best,
    publish,
    reference_setting,
    seed_run,
    settings_of,
    with_runs,
)
from neurolm.distributed.sweep_config import TuneRun
from neurolm.reports.confirmation import Confirmation
from neurolm.reports.sweep import SweepRecord, TrialRecord
from neurolm.training.worker import train_locally
from tests.distributed.survivors import make_run
from tests.distributed.test_sweep_config import make_sweep
from tests.reports.sweeps import confirmed
from tests.tiny import stored_window, write_store

BEST = TrialRecord(3, {"optimizer.learning_rate": 3e-3}, "complete", None, [(100, 0.7)], 0.7, 60.0)
RECORD = SweepRecord(metric="validation balanced accuracy, mean over workload", space={}, trials=[BEST])


def test_seeds_are_above_all_that_trials_had(tmp_path: Path) -> None:
    run = make_sweep(tmp_path, {"seed": 3}, confirmation_seeds=2)
    assert fresh_seeds(run, RECORD) == [4, 5]
    varied = replace(RECORD, trials=[BEST, replace(BEST, parameters={"seed": 11})])
    assert fresh_seeds(run, varied) == [12, 13]


def test_the_first_setting_is_to_be_beaten_or_else_the_config(tmp_path: Path) -> None:
    assert reference_setting(make_sweep(tmp_path)) == ("the config unchanged", {})
    first = [{"epochs": 5}, {"epochs": 6}]
    assert reference_setting(make_sweep(tmp_path, first=first)) == ("the setting given first", {"epochs": 5})


def test_settings_of_a_run_by_their_dotted_names(tmp_path: Path) -> None:
    run = make_sweep(tmp_path).instruct_run()
    found = settings_of(run, ["epochs", "optimizer.learning_rate", "lora", "lora.rank"])
    assert found == {"epochs": 4, "optimizer.learning_rate": 1e-3, "lora": None}


def test_runs_differ_in_setting_and_seed_only(tmp_path: Path) -> None:
    run = make_sweep(tmp_path, {"seed": 0})
    jobs = jobs_of(run, BEST, {"epochs": 8}, [1, 2])
    assert [job.run.name for job in jobs] == [
        "confirm-best-seed-1", "confirm-reference-seed-1", "confirm-best-seed-2", "confirm-reference-seed-2"
    ]  # fmt: skip
    best, reference = jobs[0].run, jobs[1].run
    assert (best.seed, best.optimizer.learning_rate, best.epochs) == (1, 3e-3, 4)
    assert (reference.seed, reference.optimizer.learning_rate, reference.epochs) == (1, 1e-3, 8)
    assert best.out == (tmp_path / "tune").resolve() and reference.validations == 4


KEPT = {"score": 0.6, "workload/balanced_accuracy": 0.7, "hmc/balanced_accuracy": 0.5, "workload/auroc": 0.8}


@pytest.mark.parametrize(
    ("sweep", "score"),
    [
        ({}, 0.6),
        ({"objective": "workload/auroc"}, 0.8),
        ({"objective": "tasks", "pruning": {"kind": "none"}}, 0.6),
    ],
)
def test_a_score_is_what_the_sweep_optimised(tmp_path: Path, sweep: dict[str, Any], score: float) -> None:
    run = make_sweep(tmp_path, **sweep)
    job = jobs_of(run, BEST, {}, [1])[0]
    found = seed_run(run, job, KEPT, None)
    assert found.score == score and found.tasks == {"workload": 0.7, "hmc": 0.5}
    failed = seed_run(run, job, None, "RuntimeError: gone")
    assert failed.score is None and failed.reason == "RuntimeError: gone"


def test_runs_are_recorded_by_setting_in_order_of_seeds(tmp_path: Path) -> None:
    run = make_sweep(tmp_path)
    jobs = jobs_of(run, BEST, {}, [1, 2])
    scored = {job.run.name: seed_run(run, job, KEPT, None) for job in reversed(jobs[1:])}
    found = with_runs(confirmed([], []), jobs, scored)
    assert [one.seed for one in found.best_runs] == [2] and [one.seed for one in found.reference_runs] == [1, 2]


def test_the_best_fresh_run_is_kept_with_its_seed(tmp_path: Path) -> None:
    run = make_sweep(tmp_path)
    found = confirmed([0.6, 0.7], [0.9, 0.9])
    for one in found.best_runs:
        model = tmp_path / "tune" / one.run_id / "model"
        model.mkdir(parents=True)
        (model / "weights").write_text(one.run_id)
    (tmp_path / "best.yaml").write_text("")
    kept = keep_best(run, BEST, found)
    weights = tmp_path / "instruct" / "model" / "weights"
    assert kept.kept_seed == 2 and weights.read_text() == "confirm-best-seed-2"
    values = yaml.safe_load((tmp_path / "best.yaml").read_text())
    assert (values["seed"], values["optimizer"]["learning_rate"], values["run_id"]) == (2, 3e-3, None)
    weights.write_text("as it is")
    assert keep_best(run, BEST, kept) is kept and weights.read_text() == "as it is"


def test_where_fresh_seeds_say_that_the_best_is_worse_the_reference_is_kept(tmp_path: Path) -> None:
    run = make_sweep(tmp_path, first=[{"optimizer.learning_rate": 5e-4, "epochs": 4}])
    found = confirmed([0.60, 0.61, 0.62], [0.64, 0.66, 0.65])
    for one in (*found.best_runs, *found.reference_runs):
        model = tmp_path / "tune" / one.run_id / "model"
        model.mkdir(parents=True)
        (model / "weights").write_text(one.run_id)
    kept = keep_best(run, BEST, replace(found, kept_seed=2))  # seed 2 of the best setting was kept before
    assert (kept.kept_seed, kept.kept_arm) == (2, "reference")
    assert (tmp_path / "instruct" / "model" / "weights").read_text() == "confirm-paper-seed-2"
    values = yaml.safe_load((tmp_path / "best.yaml").read_text())
    assert (values["seed"], values["optimizer"]["learning_rate"], values["epochs"]) == (2, 5e-4, 4)


def test_where_no_fresh_run_has_a_score_the_best_trial_stays(tmp_path: Path) -> None:
    found = confirmed([None], [0.6])
    assert keep_best(make_sweep(tmp_path), BEST, found) is found and not (tmp_path / "instruct").exists()


def test_nothing_to_confirm(tmp_path: Path) -> None:
    assert confirm(make_sweep(tmp_path, confirmation_seeds=0), RECORD) is None
    assert confirm(make_sweep(tmp_path), replace(RECORD, trials=[])) is None


def test_more_seeds_are_the_same_sweep(tmp_path: Path) -> None:
    more, fewer = make_sweep(tmp_path, confirmation_seeds=5), make_sweep(tmp_path, confirmation_seeds=1)
    assert more.key == fewer.key
    assert more.key != make_sweep(tmp_path, num_trials=3).key


@pytest.fixture
def pretrained(tmp_path: Path) -> TuneRun:
    """A sweep on windows of noise in two classes, of which one is louder; stages 1 and 2 are done."""

    def windows(seeds: range) -> list[Any]:
        made = [stored_window(2, 400, label=("rest", "arithmetic")[seed % 2], seed=seed) for seed in seeds]
        for window in made[1::2]:
            window.signal[:] *= np.float32(1.3)
        return made

    store = write_store(tmp_path / "store", {"train": windows(range(24)), "val": windows(range(100, 120))})
    for stage in ("tokenizer", "pretrain"):
        train_locally(make_run(stage, tmp_path, store, workers=1, engine={"kind": "torch"}), show_progress=False)
    run = {
        "seed": 0, "data": {"store": str(store)}, "tasks": ["workload"], "epochs": 2,
        "pretrained": str(tmp_path / "pretrain" / "model"),
        "resources": {"cpus_per_worker": 0.5, "reader_cpus": 0.1},
    }  # fmt: skip
    return make_sweep(tmp_path, run, confirmation_seeds=1, concurrent_trials=2)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_both_settings_are_trained_once_and_more_seeds_are_added(pretrained: TuneRun, ray_cluster: None) -> None:
    out = pretrained.out
    first = confirm(pretrained, RECORD)
    assert first is not None and first.is_complete and first.kept_seed == 1
    assert (out / "instruct" / "model" / "config.yaml").is_file()
    assert Confirmation.load(out / "tune" / "confirmation.json") == first
    stamps = trained_at(out)
    again = confirm(pretrained, RECORD)
    assert again == first and trained_at(out) == stamps
    more = confirm(override(pretrained, {"sweep.confirmation_seeds": 2}), RECORD)
    assert more is not None and more.seeds == [1, 2] and more.is_complete and more.difference is not None
    assert more.best_runs[0] == first.best_runs[0]
    assert {name: stamp for name, stamp in trained_at(out).items() if name in stamps} == stamps
    finished = json.loads((out / "tune" / "confirm-best-seed-2" / "finished.json").read_text())
    assert more.best_runs[1].score == finished["kept"]["score"]
    publish(pretrained, more, None)
    _check_mlflow(out, more)


def trained_at(out: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in out.glob("tune/confirm-*/finished.json")}


def _check_mlflow(out: Path, found: Confirmation) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    by_name = {run.info.run_name: run for run in runs}
    assert {f"confirm-{arm}-seed-{seed}" for arm in ("best", "reference") for seed in (1, 2)} <= set(by_name)
    assert found.best is not None
    assert by_name["sweep"].data.metrics["confirmation/best_mean"] == pytest.approx(found.best.mean)
    assert by_name["sweep"].data.tags["confirmation"] == found.verdict
