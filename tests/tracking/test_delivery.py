"""Runs are recorded locally first, found again after a restart, and never depend on MLflow being there."""

import logging
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from neurolm.config import UserError
from neurolm.tracking import JsonlTracker, TrackingConfig, read_curves, start_run
from neurolm.tracking.delivery import Delivery, Identity, identity_of
from neurolm.tracking.mlflow_run import MlflowRun


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, made once: its migrations take seconds."""
    from mlflow.tracking import MlflowClient

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}")
    return path


@pytest.fixture
def store(tmp_path: Path, empty_store: Path) -> tuple[str, Any]:
    """A SQLite store of this test and a client that reads it."""
    from mlflow.tracking import MlflowClient

    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    return uri, MlflowClient(uri)


def reader(folder: Path) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


def runs_of(client: Any) -> list[Any]:
    return client.search_runs([client.get_experiment_by_name("neurolm").experiment_id])


def test_a_run_reaches_mlflow_whole(tmp_path: Path, store: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    uri, client = store
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    tracker = start_run(TrackingConfig(uri=uri), folder=tmp_path / "run", name="pretrain", run_key="demo/pretrain")
    tracker.params({f"setting.{number}": number for number in range(230)} | {"learning_rate": 1e-5, "hf_token": "s"})
    for step in range(1500):
        tracker.metrics(step, {"loss": 1.0 / (step + 1), "val/score (a)": 0.5})
    tracker.tags({"git_commit": "abc"})
    tracker.artifact(tmp_path / "config.yaml")
    tracker.artifact(tmp_path / "run")
    tracker.close()
    (run,) = runs_of(client)
    assert run.info.run_name == "pretrain" and run.info.status == "FINISHED"
    assert len(run.data.params) == 231 and run.data.params["learning_rate"] == "1e-05"
    assert run.data.tags["neurolm.run_key"] == "demo/pretrain" and run.data.tags["git_commit"] == "abc"
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(step, 1.0 / (step + 1)) for step in range(1500)]
    assert run.data.metrics["val/score _a_"] == 0.5
    assert {item.path for item in client.list_artifacts(run.info.run_id)} == {"config.yaml", "run"}
    assert run.info.artifact_uri.startswith(f"{tmp_path.as_uri()}/mlflow-artifacts/")
    assert not (tmp_path / "mlruns").exists()
    assert read_curves(tmp_path / "run" / "tracking.jsonl")["loss"][-1] == (1499, 1.0 / 1500)


def test_a_restarted_run_continues_its_mlflow_run(tmp_path: Path, store: tuple[str, Any]) -> None:
    uri, client = store
    config = TrackingConfig(uri=uri)
    killed = start_run(config, folder=tmp_path / "run", name="trial 3", run_key="sweep/3")
    killed.params({"workers": 1, "seed": 7})
    killed.metrics(1, {"loss": 2.0})
    again = start_run(config, folder=tmp_path / "run", name="trial 3", run_key="sweep/3")
    again.params({"workers": 2, "seed": 7})
    again.metrics(2, {"loss": 1.0})
    again.close("KILLED")
    (run,) = runs_of(client)
    assert run.data.params == {"workers": "1", "seed": "7"}
    assert run.data.tags["changed.workers"] == "2" and "changed.seed" not in run.data.tags
    assert run.info.status == "KILLED"


@pytest.mark.parametrize("run_key", ["/home/me/runs of may/demo", 'it\'s "mine"', "x" * 5000, "ü`"])
def test_any_key_finds_its_run_again(store: tuple[str, Any], run_key: str) -> None:
    uri, client = store
    first, other, second = (MlflowRun(uri, "neurolm", "a", key) for key in (run_key, f"{run_key}2", run_key))
    assert first.run_id == second.run_id != other.run_id and len(runs_of(client)) == 2


def test_only_the_first_worker_records(tmp_path: Path) -> None:
    start_run(TrackingConfig(), folder=tmp_path / "run", name="a", run_key="a", rank=1).metrics(0, {"loss": 1.0})
    assert not list(tmp_path.iterdir())


def test_trials_lie_below_their_sweep(tmp_path: Path, store: tuple[str, Any]) -> None:
    uri, client = store
    config = TrackingConfig(uri=uri)
    sweep = start_run(config, folder=tmp_path / "sweep", name="sweep", run_key="demo/sweep", wait_s=60)
    trial = start_run(config, folder=tmp_path / "0", name="trial 0", run_key="demo/sweep/0", parent="demo/sweep")
    trial.close()
    sweep.close()
    by_name = {run.info.run_name: run for run in runs_of(client)}
    assert by_name["trial 0"].data.tags["mlflow.parentRunId"] == by_name["sweep"].info.run_id
    assert "mlflow.parentRunId" not in by_name["sweep"].data.tags


def test_a_trial_that_was_there_first_is_put_below_its_sweep_later(tmp_path: Path, store: tuple[str, Any]) -> None:
    uri, client = store
    config = TrackingConfig(uri=uri)
    delivery = Delivery(tmp_path / "0", config, Identity("s/0", "trial", parent="s"))
    record = JsonlTracker(tmp_path / "0" / "tracking.jsonl")
    delivery.deliver()
    MlflowRun(uri, "neurolm", "sweep", "s")
    record.metrics(1, {"loss": 1.0})
    delivery.deliver()
    by_name = {run.info.run_name: run for run in runs_of(client)}
    assert by_name["trial"].data.tags["mlflow.parentRunId"] == by_name["sweep"].info.run_id


def test_mlflow_away_costs_one_warning_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("a file where the store's folder should be")
    uri = f"sqlite:///{tmp_path}/file/mlflow.db"
    monkeypatch.setattr("neurolm.tracking.delivery.FIRST_RETRY_S", 0.01)
    tracker = start_run(TrackingConfig(uri=uri), folder=tmp_path / "run", name="a", run_key="a")
    for step in range(20):
        tracker.metrics(step, {"loss": 1.0})
    time.sleep(0.2)
    tracker.close()
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2 and "does not answer" in warnings[0]
    assert f"`neurolm track {tmp_path / 'run'}` sends the rest" in warnings[1]
    assert len(read_curves(tmp_path / "run" / "tracking.jsonl")["loss"]) == 20

    (tmp_path / "file").unlink()  # the store comes back, the process that trained is gone
    delivery = Delivery(tmp_path / "run", TrackingConfig(uri=uri), identity_of(tmp_path / "run"))
    assert delivery.deliver() == 22 and delivery.deliver() == 0
    client = reader(tmp_path / "file")
    (run,) = runs_of(client)
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 20 and run.info.status == "FINISHED"


def test_a_piece_that_was_sent_and_not_noted_is_not_doubled(
    tmp_path: Path, store: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies between MLflow's answer and its own note of it."""
    uri, client = store
    record = JsonlTracker(tmp_path / "run" / "tracking.jsonl", run_key="a")
    record.params({"seed": 7})
    for step in range(1, 6):
        record.metrics(step, {"loss": 1.0 / step, "nothing": float("nan")})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("neurolm.tracking.delivery._note", died)
        Delivery(tmp_path / "run", TrackingConfig(uri=uri), Identity("a", "a")).deliver()
    again = Delivery(tmp_path / "run", TrackingConfig(uri=uri), Identity("a", "a"))
    assert again.deliver() == 7
    (run,) = runs_of(client)
    for name in ("loss", "nothing"):
        assert [metric.step for metric in client.get_metric_history(run.info.run_id, name)] == [1, 2, 3, 4, 5]
    assert "changed.seed" not in run.data.tags


def died(*_: object) -> None:
    raise KeyboardInterrupt


def test_steps_that_a_resumed_run_repeats_are_sent_once(tmp_path: Path, store: tuple[str, Any]) -> None:
    uri, client = store
    for first, last in ((1, 5), (4, 8)):  # killed at step 5, its checkpoint is that of step 3
        record = JsonlTracker(tmp_path / "run" / "tracking.jsonl", run_key="a")
        for step in range(first, last + 1):
            record.metrics(step, {"loss": float(step)})
        Delivery(tmp_path / "run", TrackingConfig(uri=uri), Identity("a", "a")).deliver()
    (run,) = runs_of(client)
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(step, float(step)) for step in range(1, 9)]


def test_another_store_gets_the_whole_record(tmp_path: Path, store: tuple[str, Any], empty_store: Path) -> None:
    uri, client = store
    record = JsonlTracker(tmp_path / "run" / "tracking.jsonl", run_key="a")
    for step in range(3):
        record.metrics(step, {"loss": 1.0})
    Delivery(tmp_path / "run", TrackingConfig(uri=uri), Identity("a", "a")).deliver()
    shutil.copy(empty_store, tmp_path / "other.db")
    other = f"sqlite:///{tmp_path / 'other.db'}"
    Delivery(tmp_path / "run", TrackingConfig(uri=other), Identity("a", "a")).deliver()
    from mlflow.tracking import MlflowClient

    for one in (client, MlflowClient(other)):
        (run,) = runs_of(one)
        assert len(one.get_metric_history(run.info.run_id, "loss")) == 3


def test_a_folder_without_a_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no tracking\.jsonl of a run; give a run's own folder"):
        identity_of(tmp_path)


WORKER = """
import sys
from pathlib import Path
from neurolm.tracking import TrackingConfig, start_run
out, name = Path(sys.argv[1]), sys.argv[2]
for key in (name, "shared"):
    tracker = start_run(TrackingConfig(), folder=out / key, name=key, run_key=key, parent=None)
    if key == "shared":
        tracker.close()
        break
    for step in range(60):
        tracker.metrics(step, {"loss": 1.0})
        tracker.tags({"step": str(step)})
    tracker.close()
"""


def test_several_processes_share_one_new_database(tmp_path: Path) -> None:
    commands = [[sys.executable, "-c", WORKER, str(tmp_path), f"run{number}"] for number in range(2)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    errors = [process.communicate()[1] for process in processes]
    assert errors == [""] * 2  # no traceback, no warning, none of MLflow's own log lines
    client = reader(tmp_path)
    runs = runs_of(client)
    assert sorted(run.info.run_name for run in runs) == ["run0", "run1", "shared"]
    for run in runs:
        if run.info.run_name != "shared":
            assert len(client.get_metric_history(run.info.run_id, "loss")) == 60 and run.info.status == "FINISHED"
