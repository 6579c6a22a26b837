"""Workers are killed and hang; the run ends with the losses of an uninterrupted one, bit by bit."""

import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from neurolm.distributed.train import train
from neurolm.training.training_run import TrainingRun
from tests.distributed.survivors import (
    NUM_STEPS,
    SAVED_EVERY,
    Slow,
    Trace,
    Witness,
    blows,
    exact_curves,
    make_run,
)

pytestmark = [
    pytest.mark.ray,
    pytest.mark.kill,
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.filterwarnings("default"),
]
Undisturbed = Callable[[str], TrainingRun]


@pytest.mark.parametrize("stage", ["tokenizer", "pretrain", "instruct"])
def test_killed_workers(
    stage: str,
    tmp_path: Path,
    kill_store: Path,
    undisturbed: Undisturbed,
    kill_report: Callable[..., None],
) -> None:
    whole = undisturbed(stage)
    earlier = {"pretrain": "tokenizer", "instruct": "pretrained"}.get(stage)
    run = make_run(stage, tmp_path / "out", kill_store, **({earlier: str(whole.earlier_model)} if earlier else {}))
    witness = Witness(tmp_path / "witness.jsonl")
    plan = [(13, 1, signal.SIGKILL), (27, 0, signal.SIGKILL)]
    with blows(run, witness, plan) as times:
        train(run, callbacks=[witness], show_progress=False)
    trace = Trace(run)
    assert len(witness.events("start")) == 3
    lost, recovery = trace.lost_steps(), [trace.recovery_s(time) for time in times]
    assert exact_curves(run) == exact_curves(whole)
    assert lost <= 4 * SAVED_EVERY
    assert trace.steps()[-1][0] == NUM_STEPS
    kill_report(f"SIGKILL of rank 1, then of rank 0: {stage}", lost_steps=lost, recovery_s=recovery, equal="bits")


def test_hanging_workers(
    tmp_path: Path, kill_store: Path, undisturbed: Undisturbed, kill_report: Callable[..., None]
) -> None:
    """Rank 1 is frozen as a whole; later only its training thread sleeps, while its process still answers."""
    limit = 60
    run = make_run("tokenizer", tmp_path / "out", kill_store, survival={"max_failures": 2, "worker_timeout_s": limit})
    witness, marker = Witness(tmp_path / "witness.jsonl"), tmp_path / "hangs"
    sleeper = Slow(0.0, hangs_at=32, marker=marker)
    with blows(run, witness, [(13, 1, signal.SIGSTOP)]) as times:
        train(run, callbacks=[witness, sleeper], show_progress=False)
    trace = Trace(run)
    starts = witness.events("start")
    assert len(starts) == 3
    frozen, asleep = times[0], float(marker.read_text())
    noticed = [round(start["time"] - since, 1) for start, since in zip(starts[1:], (frozen, asleep), strict=True)]
    recovery = [trace.recovery_s(frozen), trace.recovery_s(asleep)]
    assert not any(psutil.pid_exists(pid) for start in starts[:-1] for pid in start["pids"])
    assert exact_curves(run) == exact_curves(undisturbed("tokenizer"))
    kill_report(
        f"rank 1 hangs, worker_timeout_s={limit}",
        lost_steps=trace.lost_steps(),
        restarted_s=noticed,
        recovery_s=recovery,
        equal="bits",
    )
