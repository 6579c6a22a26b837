"""The job itself is stopped or dies; the same run id goes on where it was, bit by bit."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from neurolm.config import as_yaml
from neurolm.training.stopping import EXIT_CODE
from neurolm.training.training_run import TrainingRun
from tests.distributed.processes import ROOT, committed_steps, head, mlflow_status, train_script
from tests.distributed.survivors import PATIENCE_S, SAVED_EVERY, Trace, exact_curves, make_run, wait_for

pytestmark = [
    pytest.mark.ray,
    pytest.mark.kill,
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.filterwarnings("default"),
]
Undisturbed = Callable[[str], TrainingRun]


def past(run: TrainingRun, step: int) -> Callable[[], bool]:
    return lambda: bool(steps := Trace(run).steps()) and steps[-1][0] >= step


def test_ctrl_c_then_driver_and_head_killed(
    tmp_path: Path, kill_store: Path, undisturbed: Undisturbed, kill_report: Callable[..., None]
) -> None:
    run = make_run("tokenizer", tmp_path / "out", kill_store, tracking={"enabled": True})
    trace = Trace(run)
    with train_script(run, tmp_path) as script:
        wait_for(past(run, 12))
        script.members()
        asked_at = time.time()
        os.killpg(script.process.pid, signal.SIGINT)  # as a terminal does: to all of the session
        assert script.process.wait(PATIENCE_S) == EXIT_CODE
        stopped_s = round(time.time() - asked_at, 1)
    stopped_at = trace.steps()[-1][0]
    said = (tmp_path / "script.log").read_text()
    assert "SIGINT: stopping after this step and its checkpoint" in said
    assert f"stopped on request after step {stopped_at} of" in said and "goes on from there" in said
    assert committed_steps(run)[-1] == stopped_at
    assert mlflow_status(run) == ["KILLED"]

    with train_script(run, tmp_path) as script:
        wait_for(past(run, stopped_at + 14))
        assert trace.lost_steps() == 0, "a run that was asked to stop repeats nothing"
        hurt_at = time.time()
        script.strike("gcs_server", "raylet")
    with train_script(run, tmp_path) as script:
        assert script.process.wait(PATIENCE_S) == 0, (tmp_path / "script.log").read_text()
    lost = trace.lost_steps()
    assert exact_curves(run) == exact_curves(undisturbed("tokenizer"))
    assert lost <= 2 * SAVED_EVERY
    assert mlflow_status(run) == ["FINISHED"]
    kill_report("Ctrl-C of the job", lost_steps=0, stopped_s=stopped_s, equal="bits")
    kill_report("driver and head killed", lost_steps=lost, recovery_s=trace.recovery_s(hurt_at), equal="bits")


def test_ray_job_stop(
    tmp_path: Path, kill_store: Path, undisturbed: Undisturbed, kill_report: Callable[..., None]
) -> None:
    run = make_run("tokenizer", tmp_path / "out", kill_store, tracking={"enabled": True})
    trace = Trace(run)
    config = tmp_path / "run.yaml"
    config.write_text(as_yaml(run))
    command = [sys.executable, str(ROOT / "ray_jobs" / "train.py"), str(config)]
    with head(tmp_path, stop_wait_s=300) as cluster:
        cluster.submit("first", *command)
        wait_for(past(run, 12))
        asked_at = time.time()
        cluster.ray("job", "stop", "first")
        stopped_s = round(time.time() - asked_at, 1)
        assert cluster.status("first") == "stopped"
        stopped_at = trace.steps()[-1][0]
        assert committed_steps(run)[-1] == stopped_at
        assert mlflow_status(run) == ["KILLED"]
        assert f"stopped on request after step {stopped_at} of" in cluster.ray("job", "logs", "first")
        cluster.submit("second", *command)
        wait_for(lambda: cluster.status("second") in ("succeeded", "failed"))
        assert cluster.status("second") == "succeeded", cluster.ray("job", "logs", "second")
    assert trace.lost_steps() == 0
    assert exact_curves(run) == exact_curves(undisturbed("tokenizer"))
    assert mlflow_status(run) == ["FINISHED"]
    kill_report("ray job stop", lost_steps=trace.lost_steps(), stopped_s=stopped_s, equal="bits")
