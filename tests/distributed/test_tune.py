"""The sweep from its config to its record, with trials that only write what a Train run would; no cluster."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neurolm.config import UserError, build
from neurolm.distributed import sweep_driver, tune
from neurolm.distributed.sweep_config import TuneRun
from neurolm.distributed.sweep_driver import trial_run
from neurolm.distributed.sweep_log import SweepLog
from neurolm.reports.sweep import SweepRecord
from neurolm.tracking import FILE_NAME, JsonlTracker
from neurolm.training.runs import InstructRun
from neurolm.training.stopping import Stopped
from tests.distributed.sweeps import history
from tests.tiny import stored_window, write_store

Train = Callable[..., dict[str, float]]


class Killed(BaseException):
    """Stands for SIGKILL: nobody catches it."""


class FakeTune:
    """Runs trials one after another in this process, as Ray Tune would in others."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: set[str] = set()
        self.validations_until_kill: float = math.inf
        self.is_gentle = False
        self.reports: list[dict[str, Any]] = []
        monkeypatch.setattr(tune.tune, "Tuner", self.tuner)
        monkeypatch.setattr(tune.tune, "report", self.reports.append)
        monkeypatch.setattr(tune, "TuneReportCallback", lambda: None)
        monkeypatch.setattr(tune, "train", self.train)
        monkeypatch.setattr(tune, "check_leakage", lambda *_: None)
        monkeypatch.setattr(tune, "made_from", lambda run: {"config": "c"})
        monkeypatch.setattr(sweep_driver, "StopFlag", self.flag)
        monkeypatch.setattr(sweep_driver, "run_key", lambda run: f"{run.out}/{run.name}")
        monkeypatch.setattr(sweep_driver, "_refuse_lost_head", lambda: None)

    def flag(self, run: InstructRun) -> Any:
        fake = self

        class Flag:
            def set(self) -> None:
                fake.asked.add(run.name)

        return Flag()

    def tuner(self, trainable: Any, *, tune_config: Any, run_config: Any) -> Any:
        self.search, self.trainable = tune_config.search_alg, trainable
        self.num_samples = tune_config.num_samples
        return self

    def fit(self) -> None:
        for number in range(self.num_samples):
            config = self.search.suggest(f"id-{number}")
            if config == self.search.FINISHED:
                return
            self.trial_id = f"id-{number}"
            self.trainable(config)
            self.search.on_trial_result(self.trial_id, self.reports.pop())
            self.search.on_trial_complete(self.trial_id, result={})

    def train(self, run: InstructRun, **_: Any) -> dict[str, float]:
        """Better at a rate of 1e-3, not a number above 1e-2; goes on after the last validation on record."""
        rate = run.optimizer.learning_rate
        if run.batch.size == 12:
            raise UserError("no batch of 12 today")
        tracker = JsonlTracker(run.folder / FILE_NAME)
        tracker.params({"optimizer.learning_rate": rate})
        steps = run.epochs * math.ceil(16 / run.batch.size)
        for number in range(1, run.validations + 1):
            score = 1 - abs(math.log10(rate) + 3) / 4 - 1 / (number + 1) if rate < 1e-2 else math.nan
            values = {"score": score, "workload/balanced_accuracy": score}
            tracker.metrics(
                number * steps // run.validations, {f"validation/{name}": value for name, value in values.items()}
            )
            (run.folder / "model").mkdir(exist_ok=True)
            (run.folder / "model" / "rate").write_text(str(rate))
            self.validations_until_kill -= 1
            if self.validations_until_kill == 0 and self.is_gentle:
                self.search._driver.stop()  # what SIGTERM does
            elif self.validations_until_kill == 0:
                raise Killed
            self.search.on_trial_result(self.trial_id, {"step": number})
            if run.name in self.asked:
                tracker.close("KILLED")
                raise Stopped(number, run.validations)
        tracker.close("FINISHED")
        return {"score": 1.0}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTune:
    return FakeTune(monkeypatch)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    windows = [stored_window(label=("rest", "arithmetic")[seed % 2], seed=seed) for seed in range(16)]
    return write_store(tmp_path / "store", {"train": windows, "val": windows[:2]})


def make_sweep(out: Path, store: Path, **sweep: Any) -> TuneRun:
    settings = {
        "num_trials": 8,
        "space": {"optimizer.learning_rate": {"log_uniform": [1e-5, 2e-2]}, "batch.size": {"choice": [4, 8, 12]}},
        "sampler": {"startup_trials": 3},
        "first": [
            {"optimizer.learning_rate": 1e-3, "batch.size": 8}, {"optimizer.learning_rate": 1e-3, "batch.size": 12},
            {"optimizer.learning_rate": 1.5e-2, "batch.size": 4}, {"optimizer.learning_rate": 1e-5, "batch.size": 4},
        ],
    }  # fmt: skip
    values = {
        "stage": "instruct", "out": str(out), "data": {"store": str(store)}, "epochs": 4, "validations": 4,
        "batch": {"size": 8}, "optimizer": {"learning_rate": 1e-3}, "engine": {"kind": "torch"},
        "tracking": {"enabled": False}, "sweep": settings | sweep,
    }  # fmt: skip
    return build(TuneRun, values, source="test")


def test_one_of_each_kind(tmp_path: Path, store: Path, fake: FakeTune) -> None:
    run = make_sweep(tmp_path / "out", store)
    record = tune.sweep(run)
    good, failed, broken, weak = record.trials[:4]
    assert (good.state, good.best_value) == ("complete", pytest.approx(0.8))
    assert (failed.state, failed.reason, failed.curve) == ("failed", "no batch of 12 today", [])
    assert broken.state == "failed" and broken.reason == "score of the validation at step 4 is no number"
    assert weak.state == "pruned" and weak.reason is not None and weak.reason.startswith("ASHA stopped it: 1 of 2")
    assert record.best is not None and len(record.trials) == 8 and fake.asked >= {"trial-0002", "trial-0003"}
    full = record.budget
    assert full is not None and good.curve[-1][0] == full and weak.curve == [(full / 4, pytest.approx(0.0))]
    assert good.rungs == [(full // 4, good.curve[0][1]), (full // 2, good.curve[1][1])]
    assert good.task_curves == {"workload": good.curve} and good.starts == 1 and good.cpu_hours is not None
    chosen = (run.out / "instruct" / "model" / "rate").read_text()
    assert float(chosen) == record.best.parameters["optimizer.learning_rate"]
    assert f"learning_rate: {chosen}" in (run.out / "best.yaml").read_text()
    ends = {}
    for trial in record.trials:
        lines = (run.sweep_folder / f"trial-{trial.number:04d}" / FILE_NAME).read_text().splitlines()
        events = [json.loads(line) for line in lines]
        (tags,) = [event["values"] for event in events if event["event"] == "tags"]
        assert tags["trial_state"] == trial.state
        ends[trial.state] = events[-1]["status"]
    assert ends == {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
    assert tune.sweep(run) == SweepRecord.load(run.sweep_folder / "sweep.json")  # is not run again


@pytest.mark.parametrize("kill_at", [1, 5, 8])
def test_killed_and_run_again(tmp_path: Path, store: Path, fake: FakeTune, kill_at: int) -> None:
    """The kill comes when a trial has validated and the driver has not heard of it."""
    whole = tune.sweep(make_sweep(tmp_path / "whole", store))
    run = make_sweep(tmp_path / "hurt", store)
    fake.asked.clear()
    fake.validations_until_kill = kill_at
    with pytest.raises(Killed):
        tune.sweep(run)
    assert not (run.sweep_folder / "sweep.json").exists() and SweepLog(run.sweep_folder).state.unfinished
    fake.asked.clear()
    record = tune.sweep(run)
    assert json.dumps(history(run.sweep_folder)) == json.dumps(history(tmp_path / "whole" / "tune"))
    assert [trial.rungs for trial in record.trials] == [trial.rungs for trial in whole.trials]
    assert sum(trial.starts for trial in record.trials) >= sum(trial.starts for trial in whole.trials)


def test_stopped_on_request_and_run_again(tmp_path: Path, store: Path, fake: FakeTune) -> None:
    tune.sweep(make_sweep(tmp_path / "whole", store))
    run = make_sweep(tmp_path / "hurt", store)
    fake.asked.clear()
    fake.validations_until_kill, fake.is_gentle = 2, True
    with pytest.raises(Stopped, match="stopped on request after 0 of 8 trials; checkpoints are written"):
        tune.sweep(run)
    assert fake.asked == {"trial-0000"}
    fake.asked.clear()
    tune.sweep(run)
    assert json.dumps(history(run.sweep_folder)) == json.dumps(history(tmp_path / "whole" / "tune"))


def test_a_sweep_is_refused_with_other_settings(tmp_path: Path, store: Path, fake: FakeTune) -> None:
    tune.sweep(make_sweep(tmp_path / "out", store))
    tune.sweep(make_sweep(tmp_path / "out", store, concurrent_trials=2))  # where it runs may change
    with pytest.raises(UserError, match="begun with another sweep; use another out"):
        tune.sweep(make_sweep(tmp_path / "out", store, num_trials=9))


def test_without_a_finished_trial_every_reason_is_told(tmp_path: Path, store: Path, fake: FakeTune) -> None:
    space = {"batch.size": {"choice": [12]}}
    with pytest.raises(UserError, match="no trial of 2 finished: no batch of 12 today"):
        tune.sweep(make_sweep(tmp_path / "out", store, space=space, first=[], num_trials=2))


def test_a_mistake_of_the_sweep_ends_it(tmp_path: Path, store: Path, fake: FakeTune) -> None:
    with pytest.raises(UserError, match="validation tells no 'workload/f1'"):
        tune.sweep(make_sweep(tmp_path / "out", store, objective="workload/f1"))


def test_trials_share_what_the_sweep_has(tmp_path: Path, store: Path) -> None:
    run = make_sweep(tmp_path / "out", store)
    trial = trial_run(run, 7, {"batch.size": 4})
    assert (trial.name, trial.folder) == ("trial-0007", tmp_path / "out" / "tune" / "trial-0007")
    assert trial.store == run.store and trial.pretrained == run.pretrained_folder
    assert trial.training_tokens == run.training_tokens
