"""Runs are recorded locally first, found again after a restart, and never depend on MLflow being there."""

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from neurolm.config import ConfigError, UserError, build
from neurolm.tracking import (
    JsonlTracker,
    MlflowTracker,
    NullTracker,
    TrackingConfig,
    is_secret,
    read_curves,
    start_run,
    without_secrets,
)


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


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


# Secrets


@pytest.mark.parametrize(
    "name",
    [
        "hf_token",
        "tracking.password",
        "AWS_SECRET_ACCESS_KEY",
        "aws.secretKey",
        "apikey",
        "data.privacy_key",
        "storage.secrets.user",
        "api_tokens",
    ],
)
def test_secrets_are_known_by_name(name: str) -> None:
    assert is_secret(name, "x")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tokenizer.hidden_size", 64),
        ("num_tokens", 1024),
        ("sep_token", 50257),
        ("keyboard", "x"),
        ("tokenizer.checkpoint", "a"),
        ("data.tokens", "bfloat16"),
        ("data.token_store", "runs/token_store"),
    ],
)
def test_settings_about_tokens_are_no_secrets(name: str, value: object) -> None:
    assert not is_secret(name, value)


def test_secrets_inside_values_go_too(caplog: pytest.LogCaptureFixture) -> None:
    values = {
        "server": {"password": "p", "port": 1},
        "stores": [{"key": "k", "name": "a"}],
        "uri": "https://me:pw@host/x",
    }
    with caplog.at_level(logging.INFO):
        kept = without_secrets(values)
    assert kept == {"server": {"port": 1}, "stores": [{"name": "a"}], "uri": "https://***@host/x"}
    assert "password" in caplog.text


# The local file


def test_jsonl_holds_what_was_reported(tmp_path: Path) -> None:
    path = tmp_path / "run" / "tracking.jsonl"
    tracker = JsonlTracker(path, run_key="a/1")
    tracker.params({"optimizer.learning_rate": 3e-4, "password": "p"})
    tracker.metrics(5, {"loss": 0.5, "grad_norm": float("nan")})
    tracker.artifact(tmp_path / "x.yaml")
    tracker.close("KILLED")
    tracker.close("KILLED")
    start, params, metrics, artifact, close = entries(path)
    assert start["event"] == "start" and start["run_key"] == "a/1"
    assert params["values"] == {"optimizer.learning_rate": 3e-4}
    assert metrics["step"] == 5 and metrics["values"] == {"loss": 0.5, "grad_norm": "nan"} and metrics["time"] > 1e9
    assert artifact["path"].endswith("x.yaml") and close["status"] == "KILLED"


def test_a_killed_process_costs_only_its_last_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "tracking.jsonl"
    first = JsonlTracker(path)
    first.metrics(1, {"loss": 3.0})
    first.metrics(2, {"loss": 2.0})
    with path.open("ab") as file:
        file.write(b'{"event": "metrics", "ste')
    second = JsonlTracker(path)
    second.metrics(2, {"loss": 1.5, "accuracy": 1.0})
    assert read_curves(path) == {"loss": [(1, 3.0), (2, 1.5)], "accuracy": [(2, 1.0)]}
    assert "cut off" in caplog.text


# Settings


def test_the_database_lies_among_the_results_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert TrackingConfig().at(tmp_path).uri == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.chdir(tmp_path)
    assert TrackingConfig(uri="sqlite:///runs.db").at("elsewhere").uri == f"sqlite:///{tmp_path}/runs.db"
    assert TrackingConfig(uri="https://mlflow.lab").at(tmp_path).uri == "https://mlflow.lab"


def test_what_cannot_be_a_store_is_refused() -> None:
    with pytest.raises(ConfigError, match="sqlite:////absolute"):
        build(TrackingConfig, {"uri": "./mlruns"}, source="x.yaml")
    with pytest.raises(UserError, match=r"tracking\.uri"):
        TrackingConfig().at("s3://bucket/out")


def test_without_mlflow_only_the_file_is_written(tmp_path: Path) -> None:
    tracker = start_run(TrackingConfig(enabled=False), folder=tmp_path, name="a", run_key="a")
    tracker.metrics(0, {"loss": 1.0})
    tracker.close()
    assert [path.name for path in tmp_path.iterdir()] == ["tracking.jsonl"]
    NullTracker().metrics(0, {"loss": 1.0})


# MLflow


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
    first, other, second = (MlflowTracker(uri, "neurolm", "a", key) for key in (run_key, f"{run_key}2", run_key))
    assert first.flush() and other.flush() and second.flush()
    assert first.run_id == second.run_id != other.run_id and len(runs_of(client)) == 2


def test_only_the_first_worker_records(tmp_path: Path) -> None:
    start_run(TrackingConfig(), folder=tmp_path / "run", name="a", run_key="a", rank=1).metrics(0, {"loss": 1.0})
    assert not list(tmp_path.iterdir())


def test_trials_lie_below_their_sweep(tmp_path: Path, store: tuple[str, Any]) -> None:
    uri, client = store
    config = TrackingConfig(uri=uri)
    sweep = start_run(config, folder=tmp_path / "sweep", name="sweep", run_key="demo/sweep")
    trial = start_run(config, folder=tmp_path / "0", name="trial 0", run_key="demo/sweep/0", parent="demo/sweep")
    trial.close()
    sweep.close()
    by_name = {run.info.run_name: run for run in runs_of(client)}
    assert by_name["trial 0"].data.tags["mlflow.parentRunId"] == by_name["sweep"].info.run_id
    assert "mlflow.parentRunId" not in by_name["sweep"].data.tags


def test_mlflow_away_costs_one_warning_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("a file where the store's folder should be")
    uri = f"sqlite:///{tmp_path}/file/mlflow.db"
    monkeypatch.setattr("neurolm.tracking.FIRST_RETRY_S", 0.0)
    tracker = start_run(TrackingConfig(uri=uri), folder=tmp_path / "run", name="a", run_key="a")
    for step in range(20):
        tracker.metrics(step, {"loss": 1.0})
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1 and "tracking.jsonl" in warnings[0].message
    assert len(read_curves(tmp_path / "run" / "tracking.jsonl")["loss"]) == 20

    (tmp_path / "file").unlink()  # the store comes back: what was kept is sent
    tracker.close()
    client = reader(tmp_path / "file")
    (run,) = runs_of(client)
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 20 and run.info.status == "FINISHED"


def test_what_mlflow_never_took_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    tracker = MlflowTracker(f"sqlite:///{tmp_path}/file/mlflow.db", "neurolm", "a", "a")
    tracker.metrics(0, {"loss": 1.0, "accuracy": 0.5})
    tracker.close()
    assert "2 metric values are only in tracking.jsonl" in caplog.text


WORKER = """
import sys
from pathlib import Path
from neurolm.tracking import TrackingConfig, start_run
out, name = Path(sys.argv[1]), sys.argv[2]
for key in (name, "shared"):
    tracker = start_run(TrackingConfig(), folder=out / key, name=key, run_key=key, parent=None)
    if key == "shared":
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
