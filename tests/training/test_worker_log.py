"""Machines read what every worker says, people only what they must know."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from neurolm.training.worker_log import WorkerLog

logger = logging.getLogger("neurolm.some.module")


def lines(folder: Path, rank: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "logs" / f"worker-{rank:05d}.jsonl").read_text().splitlines()]


def test_a_worker_leaves_lines_for_machines(tmp_path: Path) -> None:
    before = list(logging.getLogger("neurolm").handlers), logging.getLogger("neurolm").level
    log = WorkerLog(tmp_path, "pretrain", rank=3, world_size=8)
    logger.info("two %s", "words")
    log.metrics(7, {"loss": 1.0})
    logger.warning("a warning")
    log.metrics(8, {"validation/loss": 2.5, "validation/eeg_accuracy": 0.25})
    log.metrics(8, {"checkpoint": 8.0})
    try:
        raise OSError("disk full")
    except OSError:
        log.close("FAILED")
    logger.warning("after its end")
    start, info, warning, validation, checkpoint, end = lines(tmp_path, 3)
    assert start["event"] == "start" and start["step"] is None and start["message"] == "worker 3 of 8 begins"
    assert info.keys() == {"time", "level", "rank", "step", "run", "event", "message"}
    assert (info["level"], info["rank"], info["run"], info["event"]) == ("INFO", 3, "pretrain", "log")
    assert info["message"] == "two words" and info["time"].endswith("Z")
    assert (warning["level"], warning["step"]) == ("WARNING", 7)
    assert validation["event"] == "validation" and "loss 2.5, eeg_accuracy 0.25" in validation["message"]
    assert (checkpoint["event"], checkpoint["step"]) == ("checkpoint", 8)
    assert end["level"] == "ERROR" and end["message"] == "worker ends, FAILED: OSError: disk full"
    assert (list(logging.getLogger("neurolm").handlers), logging.getLogger("neurolm").level) == before


def test_people_see_warnings_with_their_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:  # as in a process that nobody configured; pytest has handlers of its own
        patch.setattr(logging.getLogger(), "handlers", [])
        log = WorkerLog(tmp_path, "pretrain", rank=1, world_size=2)
    logger.info("nothing to worry about")
    logger.warning("look here")
    log.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("WARNING worker 1: look here")


def test_a_restarted_worker_goes_on_in_its_file(tmp_path: Path) -> None:
    for _ in range(2):
        WorkerLog(tmp_path, "pretrain", rank=0, world_size=1).close()
    assert [line["event"] for line in lines(tmp_path, 0)] == ["start", "end"] * 2
