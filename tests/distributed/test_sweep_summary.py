"""A sweep's folder is read at any time: before, during and after, and nothing in it is touched."""

import json
from pathlib import Path

import pytest

from neurolm.cli import main
from neurolm.config import UserError, as_yaml
from neurolm.distributed import tune
from neurolm.distributed.sweep_config import TuneRun
from neurolm.distributed.sweep_summary import read_sweep
from tests.distributed import test_tune
from tests.distributed.test_sweep_config import make_sweep
from tests.distributed.test_tune import FakeTune, Killed, fake, store  # noqa: F401

TIMES = {"number": 0, "origin": "sampler", "mistake": None, "notes": {}, "study_notes": {}}


def write_folder(run: TuneRun, events: list[dict[str, object]]) -> Path:
    folder = run.sweep_folder
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(as_yaml(run))
    lines = [json.dumps({"time": 100.0 + place} | event) for place, event in enumerate(events)]
    (folder / "trials.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder


def proposed(number: int, rate: float) -> dict[str, object]:
    parameters = {"optimizer.learning_rate": rate, "epochs": 8}
    return TIMES | {"event": "trial", "number": number, "parameters": parameters, "full_budget": 800}


def reported(number: int, budget: int, score: float) -> dict[str, object]:
    return {
        "event": "report", "number": number, "step": budget // 10, "budget": budget, "score": score,
        "objectives": {"score": score}, "tasks": {"workload": score + 0.1, "hmc": score - 0.1},
    }  # fmt: skip


BEGUN: list[dict[str, object]] = [
    {"event": "begin", "given": [], "learnt": [], "keep": "best"},
    proposed(0, 1e-3), reported(0, 200, 0.5), reported(0, 800, 0.6),
    {"event": "end", "number": 0, "state": "complete", "reason": None},
    proposed(1, 2e-3), reported(1, 200, 0.4),
    {"event": "end", "number": 1, "state": "pruned", "reason": "weak"},
    proposed(2, 3e-3), reported(2, 200, 0.55),
]  # fmt: skip


def test_a_running_sweep_is_read_as_far_as_it_is(tmp_path: Path) -> None:
    folder = write_folder(make_sweep(tmp_path, num_trials=3), BEGUN)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    record = read_sweep(folder)
    assert [trial.state for trial in record.trials] == ["complete", "pruned", "running"]
    assert not record.is_finished and record.best is record.trials[0] and record.full_budget == 800
    assert record.trials[0].task_curves["workload"] == [(200, 0.6), (800, 0.7)]
    assert record.space["epochs"] == "integer [2, 8]"
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(("keep", "value", "kept_at"), [("best", 0.5, 200), ("final", 0.4, 800)])
def test_the_record_says_of_which_weights_a_trial_s_value_is(
    tmp_path: Path, keep: str, value: float, kept_at: float
) -> None:
    events: list[dict[str, object]] = [
        {"event": "begin", "given": [], "learnt": [], "keep": keep},
        proposed(0, 1e-3), reported(0, 200, 0.5), reported(0, 800, 0.4),
        {"event": "end", "number": 0, "state": "complete", "reason": None},
    ]  # fmt: skip
    (trial,) = read_sweep(write_folder(make_sweep(tmp_path, num_trials=1), events)).trials
    assert (trial.best_value, trial.kept_at) == (value, kept_at)


def test_a_line_that_is_being_written_waits(tmp_path: Path) -> None:
    folder = write_folder(make_sweep(tmp_path, num_trials=3), BEGUN)
    with (folder / "trials.jsonl").open("a") as file:
        file.write('{"event": "rep')
    assert len(read_sweep(folder).trials[2].curve) == 1


def test_where_all_trials_have_ended_the_sweep_has(tmp_path: Path) -> None:
    ended: dict[str, object] = {"event": "end", "number": 2, "state": "failed", "reason": "gone"}
    record = read_sweep(write_folder(make_sweep(tmp_path, num_trials=3), [*BEGUN, ended]))
    assert record.is_finished and record.trials[2].reason == "gone"


def test_no_sweep_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no sweep has begun here"):
        read_sweep(tmp_path)


def test_a_killed_sweep_has_a_report_and_a_finished_one_is_read_as_recorded(
    tmp_path: Path,
    store: Path,  # noqa: F811
    fake: FakeTune,  # noqa: F811
) -> None:
    out = tmp_path / "out"
    run = test_tune.make_sweep(out, store)
    fake.validations_until_kill = 5
    with pytest.raises(Killed):
        tune.sweep(run)
    main(["report", str(out)])
    report = json.loads((out / "report.json").read_text())
    assert not report["is_finished"] and [one["state"] for one in report["trials"]].count("running") == 1
    assert "The sweep has not ended" in (out / "report.html").read_text()
    fake.asked.clear()
    record = tune.sweep(run)
    assert read_sweep(run.sweep_folder) == record
    main(["report", str(out / "tune")])
    assert json.loads((out / "report.json").read_text())["best"]["config"] == "best.yaml"
