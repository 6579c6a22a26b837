"""The local record survives its process and says where runs go besides."""

import json
from pathlib import Path
from typing import Any

import pytest

from neurolm.config import ConfigError, UserError, build
from neurolm.tracking import JsonlTracker, NullTracker, TrackingConfig, read_curves, start_run
from neurolm.tracking.journal import read_pieces


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


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


def test_a_record_is_read_in_pieces_from_any_line_on(tmp_path: Path) -> None:
    path = tmp_path / "tracking.jsonl"
    tracker = JsonlTracker(path)
    for step in range(50):
        tracker.metrics(step, {"loss": step / 2})
    with path.open("ab") as file:
        file.write(b'{"event": "half a li')
    whole = [entry for piece in read_pieces(path) for entry in piece.entries]
    assert [entry.get("step") for entry in whole] == [None, *range(50)]
    pieces = list(read_pieces(path, max_bytes=100))
    assert [entry for piece in pieces for entry in piece.entries] == whole and len(pieces) > 20
    middle = pieces[10]
    again = [entry for piece in read_pieces(path, middle.end, middle.next_line) for entry in piece.entries]
    assert again == whole[middle.next_line - 1 :]


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
