"""Anybody who sees a run's folder sees how it is doing."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from neurolm.cli import main
from neurolm.config import UserError
from neurolm.reports.run_status import as_json, run_folders, run_status, status_lines
from neurolm.tracking import JsonlTracker

NOW = 1_000_000.0


def record(folder: Path, *entries: tuple[float, str, dict[str, Any]]) -> Path:
    """A record whose lines have these times."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "tracking.jsonl").open("a") as file:
        for at, event, fields in entries:
            file.write(json.dumps({"event": event, "time": at, **fields}) + "\n")
    return folder


def step(number: int, at: float, total: int = 100, **values: float) -> tuple[float, str, dict[str, Any]]:
    return at, "metrics", {"step": number, "values": {"loss": 5.0 / number, "progress": number / total} | values}


def begun(at: float) -> list[tuple[float, str, dict[str, Any]]]:
    return [(at, "start", {"run_key": "a"}), (at, "params", {"values": {"seed": 1}})]


def test_a_running_run(tmp_path: Path) -> None:
    rates = {"throughput/windows_per_second": 12.0, "throughput/tokens_per_second": 900.0, "throughput/mfu": 0.31}
    folder = record(
        tmp_path / "pretrain",
        *begun(NOW - 200),
        *(step(number, NOW - 200 + 2 * number, **rates) for number in range(1, 41)),
        (NOW - 115, "metrics", {"step": 40, "values": {"validation/loss": 4.25}}),
        (NOW - 110, "metrics", {"step": 40, "values": {"checkpoint": 40.0}}),
        *begun(NOW - 90),
        *(step(number, NOW - 170 + 2 * number, **rates) for number in range(41, 81)),
    )
    status = run_status(folder, NOW)
    assert (status.state, status.step, status.total_steps, status.restarts) == ("running", 80, 100, 1)
    assert status.loss == 5.0 / 80 and status.validation == {"loss": 4.25, "step": 40.0}
    assert status.eta_s == pytest.approx(40.0)
    assert (status.checkpoint_step, status.checkpoint_age_s, status.silent_s) == (40, 110.0, 10.0)
    assert status.throughput["mfu"] == 0.31 and status.mlflow is None
    text = "\n".join(status_lines(status))
    for part in ("running, step 80 of 100 (80%)", "loss 0.0625", "validation loss 4.25 (of step 40)", "MFU 31.0%",
                 "40 s to go", "checkpoint of step 40, 1 min 50 s ago", "1 restarts",
                 "last word 10 s ago"):  # fmt: skip
        assert part in text
    assert json.loads(as_json([status]))["runs"][0]["step"] == 80


def test_a_run_that_says_nothing_for_long_is_stalled(tmp_path: Path) -> None:
    quick = record(tmp_path / "quick", *begun(NOW - 402), *(step(one, NOW - 400 + one) for one in range(1, 10)))
    assert run_status(quick, NOW - 300).state == "running"
    assert run_status(quick, NOW).state == "stalled"
    slow = record(tmp_path / "slow", *begun(NOW - 2000), *(step(one, NOW - 2000 + 300 * one) for one in range(1, 4)))
    assert run_status(slow, NOW).state == "running", "its steps take 300 s"


@pytest.mark.parametrize(("status", "state"), [("FINISHED", "finished"), ("FAILED", "failed"), ("KILLED", "stopped")])
def test_a_run_that_ended_says_how(tmp_path: Path, status: str, state: str) -> None:
    folder = record(tmp_path / "run", *begun(NOW), step(100, NOW + 1), (NOW + 2, "close", {"status": status}))
    assert run_status(folder, NOW + 10_000).state == state
    assert run_status(folder, NOW + 10_000).eta_s is None


def test_a_run_that_has_not_stepped_yet_and_one_with_a_loss_that_is_none(tmp_path: Path) -> None:
    new = record(tmp_path / "new", *begun(NOW))
    assert "step ? of ?" in status_lines(run_status(new, NOW + 1))[0]
    bad = record(tmp_path / "bad", *begun(NOW), (NOW, "metrics", {"step": 1, "values": {"loss": "nan"}}))
    assert json.loads(as_json([run_status(bad, NOW + 1)]))["runs"][0]["loss"] is None


def test_all_runs_of_a_folder_are_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tokenizer", "sweep", "sweep/trial-0", "sweep/trial-1"):
        record(tmp_path / name, *begun(NOW), step(100, NOW), (NOW, "close", {"status": "FINISHED"}))
    assert [str(folder.relative_to(tmp_path)) for folder in run_folders(tmp_path / "sweep")] == [
        "sweep", "sweep/trial-0", "sweep/trial-1"
    ]  # fmt: skip
    main(["status", str(tmp_path), "--json"])
    assert len(json.loads(capsys.readouterr().out)["runs"]) == 4
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("nothing is left to follow"))
    main(["status", str(tmp_path / "tokenizer"), "--follow"])
    assert "tokenizer: finished, step 100 of 100 (100%)" in capsys.readouterr().out
    with pytest.raises(UserError, match="no run here"):
        run_folders(tmp_path / "sweep" / "trial-0" / "nothing")


def test_what_mlflow_has_not_got_is_told_and_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "out" / "run"
    tracker = JsonlTracker(folder / "tracking.jsonl", run_key="k", name="run")
    tracker.metrics(1, {"loss": 1.0, "progress": 1.0})
    main(["track", str(tmp_path / "out")])
    assert "run: 2 lines sent" in capsys.readouterr().out
    tracker.close("KILLED")
    status = run_status(folder)
    assert status.unsent_bytes > 0 and f"neurolm track {folder}" in status_lines(status)[-1]
    assert status.mlflow is not None and "mlflow ui --backend-store-uri sqlite:////" in status.mlflow
    main(["track", str(folder)])
    assert "run: 1 lines sent" in capsys.readouterr().out
    assert run_status(folder).unsent_bytes == 0
