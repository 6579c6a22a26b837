"""A sweep is stopped, and its driver, head and trials are killed; it ends as one that nothing happened to."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psutil
import pytest

from neurolm.config import as_yaml, build
from neurolm.distributed.study import STUDY
from neurolm.distributed.study_copy import DATABASE
from neurolm.distributed.sweep_config import TuneRun
from neurolm.distributed.sweep_log import FILE_NAME
from neurolm.reports.sweep import SweepRecord
from neurolm.training.stopping import EXIT_CODE
from neurolm.training.worker import train_locally
from tests.distributed.processes import ROOT, Family, environment
from tests.distributed.survivors import PATIENCE_S, make_run, wait_for
from tests.distributed.sweeps import history
from tests.tiny import stored_window, write_store

pytestmark = [
    pytest.mark.ray,
    pytest.mark.kill,
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.filterwarnings("default"),
]
NUM_TRIALS = 3


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> TuneRun:
    """A sweep on windows of noise in two classes, of which one is louder; stages 1 and 2 are done."""
    folder = tmp_path_factory.mktemp("pretrained")

    def windows(seeds: range) -> list[Any]:
        made = [stored_window(2, 400, label=("rest", "arithmetic")[seed % 2], seed=seed) for seed in seeds]
        for window in made[1::2]:
            window.signal[:] *= np.float32(1.3)
        return made

    store = write_store(folder / "store", {"train": windows(range(60)), "val": windows(range(100, 140))})
    for stage in ("tokenizer", "pretrain"):
        train_locally(make_run(stage, folder, store, workers=1, engine={"kind": "torch"}), show_progress=False)
    values = {
        "stage": "instruct", "out": str(folder), "seed": 3, "data": {"store": str(store)}, "tasks": ["workload"],
        "pretrained": str(folder / "pretrain" / "model"), "epochs": 12, "validations": 4, "selection": "auroc",
        "batch": {"size": 8}, "optimizer": {"learning_rate": 1e-3}, "engine": {"kind": "torch"},
        "checkpoints": {"every_steps": 4}, "resources": {"cpus_per_worker": 0.5, "reader_cpus": 0.1},
        "sweep": {
            "num_trials": NUM_TRIALS,
            "confirmation_seeds": 0,
            "space": {
                "optimizer.learning_rate": {"log_uniform": [1e-4, 3e-2]},
                "batch.size": {"choice": [8, 12]},
                "optimizer.weight_decay": {"uniform": [0.0, 0.2]},
            },
            "sampler": {"startup_trials": 2},
            "pruning": {"kind": "asha", "grace": 0.25, "reduction_factor": 2},
        },
    }  # fmt: skip
    return build(TuneRun, values, source="test")


@contextmanager
def tune_script(run: TuneRun, out: Path) -> Iterator[Family]:
    """`ray_jobs/tune.py` on a sweep into ``out``, with a Ray session of its own."""
    out.mkdir(exist_ok=True)
    config = out / "tune.yaml"
    config.write_text(as_yaml(run))
    command = [sys.executable, str(ROOT / "ray_jobs" / "tune.py"), str(config), f"out={out}"]
    family = Family(command, out / "script.log", environment())
    try:
        yield family
    finally:
        family.end()


def heard(out: Path, number: int, validations: int) -> Callable[[], bool]:
    """Whether so many validations of a trial are on record."""

    def is_so() -> bool:
        path = out / "tune" / FILE_NAME
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        events = [json.loads(line) for line in lines if line.endswith("\n")]
        return sum(one["event"] == "report" and one["number"] == number for one in events) >= validations

    return is_so


def trial_processes(script: Family) -> list[psutil.Process]:
    """The process in which Ray Tune runs a trial, once there is one."""
    return [one for one in script.members() if "ray::ImplicitFunc" in " ".join(one.cmdline())]


def finish(script: Family, out: Path) -> None:
    assert script.process.wait(PATIENCE_S) == 0, (out / "script.log").read_text()


def mlflow_runs(out: Path) -> dict[str, tuple[str, str | None]]:
    """Status and parent's name of every run; no two may have one name."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    names = {run.info.run_id: run.info.run_name for run in runs}
    assert len(set(names.values())) == len(runs), sorted(names.values())
    parents = {run.info.run_name: names.get(run.data.tags.get("mlflow.parentRunId", "")) for run in runs}
    return {run.info.run_name: (run.info.status, parents[run.info.run_name]) for run in runs}


def test_a_sweep_killed_in_every_way(tmp_path: Path, pretrained: TuneRun, kill_report: Callable[..., None]) -> None:
    whole, hurt = tmp_path / "whole", tmp_path / "hurt"
    with tune_script(pretrained, whole) as script:
        finish(script, whole)
    with tune_script(pretrained, hurt) as script:
        wait_for(heard(hurt, 0, 2))
        script.strike("gcs_server", "raylet")  # driver and head
    with tune_script(pretrained, hurt) as script:
        (trial,) = wait_for(lambda: trial_processes(script))  # the first trial's, which is never pruned
        trial.kill()
        wait_for(heard(hurt, 1, 1))
        script.members()
        os.kill(script.process.pid, signal.SIGTERM)
        assert script.process.wait(PATIENCE_S) == EXIT_CODE, (hurt / "script.log").read_text()
    assert mlflow_runs(hurt)["sweep"] == ("KILLED", None)
    with tune_script(pretrained, hurt) as script:
        wait_for(heard(hurt, 2, 1))
        script.strike("gcs_server", "raylet")
    with tune_script(pretrained, hurt) as script:
        finish(script, hurt)

    assert history(hurt / "tune") == history(whole / "tune")
    records = [SweepRecord.load(out / "tune" / "sweep.json") for out in (whole, hurt)]
    told = [
        [(one.parameters, one.state, one.reason, one.curve, one.rungs, one.best_value) for one in record.trials]
        for record in records
    ]
    assert told[0] == told[1]
    assert sum(trial.starts for trial in records[1].trials) > sum(trial.starts for trial in records[0].trials)
    assert mlflow_runs(hurt) == mlflow_runs(whole)
    states = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
    expected = {f"trial-{one.number:04d}": (states[one.state], "sweep") for one in records[1].trials}
    assert mlflow_runs(hurt) == expected | {"sweep": ("FINISHED", None)}
    assert len(expected) == NUM_TRIALS and {one.state for one in records[0].trials} >= {"complete"}
    study = optuna.load_study(study_name=STUDY, storage=f"sqlite:///{hurt / 'tune' / DATABASE}")
    names = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
    assert [one.state.name for one in study.trials] == [names[one.state] for one in records[0].trials]
    assert not list((hurt / "tune" / "checkpoints").glob("*/step-*")), "ended trials keep no checkpoints"
    assert (hurt / "instruct" / "model" / "config.yaml").is_file() and (hurt / "best.yaml").is_file()
    kill_report(
        "sweep: driver and head twice, a trial's process, SIGTERM",
        states=[one.state for one in records[1].trials],
        starts=[one.starts for one in records[1].trials],
        equal="bits",
    )
