"""Instruction tokens of a run counted by hand, and what a trial's own record says after cuts."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from neurolm.config import ConfigError, build
from neurolm.distributed.trial_budget import BudgetAxis, TrialRecording, points, read_recording
from neurolm.text.bpe import gpt2_bpe
from neurolm.training.runs import InstructRun
from tests.tiny import stored_window, tasks, write_store


def make_run(store: Path, **changes: Any) -> InstructRun:
    values = {
        "stage": "instruct", "out": str(store.parent / "out"), "data": {"store": str(store)},
        "tasks": ["workload", "hmc"], "epochs": 2, "batch": {"size": 2}, "optimizer": {"learning_rate": 1e-3},
    }  # fmt: skip
    return build(InstructRun, values | changes, source="test")


def test_tokens_of_windows_and_of_what_they_are_asked(tmp_path: Path) -> None:
    windows = [
        stored_window(2, 400, label="rest"),  # 2 channels x 2 s
        stored_window(3, 600, label="arithmetic", seed=1),  # 3 x 3
        stored_window(1, 800, label="N3", data_set="hmc", seed=2),  # 1 x 4
    ]
    run = make_run(write_store(tmp_path / "store", {"train": windows, "val": windows}))
    text = {name: len(task.prompt_ids) + len(task.code.answer_end) for name, task in tasks().items()}
    words = {word: len(gpt2_bpe().encode(word)) for word in (" No", " Yes", "D)")}
    total = 4 + 9 + 4 + 2 * text["workload"] + text["hmc"] + sum(words.values())
    axis = BudgetAxis.of(run)
    assert axis.num_windows == 3 and math.isclose(axis.tokens_per_window * 3, total)
    assert axis.full(2) == 2 * total
    assert [axis.at(run, step) for step in (2, 4)] == [total, 2 * total]  # two steps an epoch, the second of one window
    assert axis.at(run, 1) == round(2 / 3 * total)
    whole = make_run(run.store, batch={"size": 3})
    assert axis.at(whole, 1) == axis.at(run, 2)


def record(folder: Path, *events: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    with (folder / "tracking.jsonl").open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)
    return folder


def validation(step: int, time: float, **values: Any) -> dict[str, Any]:
    named = {f"validation/{name.replace('__', '/')}": value for name, value in values.items()}
    return {"event": "metrics", "time": time, "step": step, "values": named}


def test_a_record_that_was_cut_off_twice(tmp_path: Path) -> None:
    assert read_recording(tmp_path) == TrialRecording({}, 0, 0.0, False)
    folder = record(
        tmp_path,
        {"event": "start", "time": 100.0},
        {"event": "params", "time": 102.0, "values": {}},
        validation(5, 110.0, score=0.5),
        {"event": "start", "time": 500.0},  # killed before it trained
        {"event": "start", "time": 600.0},
        {"event": "params", "time": 601.0, "values": {}},
        validation(5, 603.0, score=0.75),  # a step that was repeated: what was told first stands
        validation(10, 620.0, score="nan"),
        {"event": "close", "time": 621.0, "status": "FINISHED"},
    )
    found = read_recording(folder)
    assert found.validations[5] == {"score": 0.5} and math.isnan(found.validations[10]["score"])
    assert (found.starts, found.seconds, found.is_told) == (2, 10.0 + 21.0, False)
    record(
        folder,
        {"event": "start", "time": 900.0},
        {"event": "tags", "time": 900.1, "values": {"trial_state": "failed"}},
        {"event": "close", "time": 900.2, "status": "FAILED"},
    )
    told = read_recording(folder)
    assert told.is_told and (told.starts, told.seconds) == (2, 31.0)  # what the sweep adds is no work


def test_objectives(tmp_path: Path) -> None:
    run = make_run(tmp_path / "store", selection="auroc")
    folder = record(
        tmp_path,
        validation(1, 1.0, score=0.6, workload__auroc=0.8, workload__balanced_accuracy=0.7, hmc__balanced_accuracy=0.4),
    )
    axis, recording = BudgetAxis(4, 10.0), read_recording(folder)
    (point,) = points(recording, run, axis, ["workload", "hmc"])
    assert (point.step, point.budget, point.score) == (1, 20, 0.6)
    assert point.objectives == point.tasks == {"workload": 0.8, "hmc": 0.4}  # of hmc there is no AUROC
    (point,) = points(recording, run, axis, ["workload/balanced_accuracy"])
    assert point.objectives == {"workload/balanced_accuracy": 0.7}
    with pytest.raises(ConfigError, match="validation tells no 'workload/f1'; it tells hmc/balanced_accuracy"):
        list(points(recording, run, axis, ["workload/f1"]))
