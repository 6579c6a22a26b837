"""A sweep's record knows its best trial and survives the disk."""

from dataclasses import replace
from pathlib import Path

import pytest

from neurolm.reports.sweep import SweepError, SweepRecord
from tests.reports.sweeps import SWEEP, TRIALS


def test_the_best_trial_had_the_full_budget() -> None:
    assert SWEEP.best is TRIALS[1]  # not the pruned one with 0.74
    assert replace(SWEEP, mode="min").best is TRIALS[0]
    assert replace(SWEEP, trials=TRIALS[2:]).best is None


def test_a_record_survives_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "tune" / "sweep.json"
    SWEEP.save(path)
    loaded = SweepRecord.load(path)
    assert replace(loaded, trials=[]) == replace(SWEEP, trials=[])
    assert loaded.trials[:3] == TRIALS[:3] and loaded.trials[3].points == [] and loaded.trials[3].best_value is None


def test_what_a_trial_cost_survives_the_disk(tmp_path: Path) -> None:
    trial = replace(
        TRIALS[1], task_curves={"sleep": [(1, 0.6), (2, 0.7)]}, rungs=[(1, 0.6)], starts=3, gpu_hours=1.5, cpu_hours=2.0
    )
    sweep = replace(SWEEP, trials=[trial], full_budget=1e6, sampler="TPE", directions={"score": "max"})
    sweep.save(tmp_path / "sweep.json")
    assert SweepRecord.load(tmp_path / "sweep.json") == sweep
    assert sweep.budget == 1e6 and SWEEP.budget == 2


@pytest.mark.parametrize(
    "text", ["", "[]", '{"schema": 1}', '{"schema": 2, "trials": []}', '{"schema": 1, "trials": [{"number": 1}]}']
)
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(SweepError, match=r"sweep\.json"):
        SweepRecord.load(tmp_path / "sweep.json")


def test_an_unknown_state_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of complete, pruned, failed"):
        replace(TRIALS[0], state="TERMINATED")
