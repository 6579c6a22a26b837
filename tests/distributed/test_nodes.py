"""A node is lost, is announced to go, or is not replaced: two raylets on one machine, of which one is taken away."""

import json
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neurolm.config import as_yaml, override
from neurolm.training.training_run import TrainingRun
from tests.distributed.processes import Family, environment
from tests.distributed.survivors import (
    NUM_STEPS,
    PATIENCE_S,
    SAVED_EVERY,
    Trace,
    Witness,
    exact_curves,
    make_run,
    wait_for,
)

pytestmark = [
    pytest.mark.ray,
    pytest.mark.kill,
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.filterwarnings("default"),
]
Undisturbed = Callable[[str], TrainingRun]
NOTICED_SOON = {"RAY_health_check_period_ms": "2000", "RAY_health_check_timeout_ms": "10000"}


def on_two_nodes(scenario: str, folder: Path, store: Path, **changes: Any) -> tuple[TrainingRun, dict[str, float]]:
    """The run after what the scenario did to it, and when that was; a node holds one worker."""
    run = override(make_run("tokenizer", folder / "out", store), {"resources.cpus_per_worker": 0.8} | changes)
    (folder / "run.yaml").write_text(as_yaml(run))
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    sockets = tempfile.mkdtemp(prefix="ray-")
    command = [sys.executable, "-m", "tests.distributed.nodes", scenario, str(folder), sockets]
    family = Family(command, folder / "nodes.log", environment(**secret, **NOTICED_SOON))
    try:
        wait_for(family.is_over, 3 * PATIENCE_S)
        assert family.process.returncode == 0, (folder / "nodes.log").read_text()[-5000:]
    finally:
        family.end()
        shutil.rmtree(sockets, ignore_errors=True)
    return run, json.loads((folder / "blows.json").read_text())


def test_a_node_is_lost_and_replaced(
    tmp_path: Path, kill_store: Path, undisturbed: Undisturbed, kill_report: Callable[..., None]
) -> None:
    run, blows = on_two_nodes("replaced", tmp_path, kill_store)
    trace, witness = Trace(run), Witness(tmp_path / "witness.jsonl")
    lost, recovery = trace.lost_steps(), trace.recovery_s(blows["hurt_at"])
    assert [len(start["pids"]) for start in witness.events("start")] == [2, 2]
    assert exact_curves(run) == exact_curves(undisturbed("tokenizer"))
    assert lost <= 3 * SAVED_EVERY
    kill_report("node lost, replaced after 3 s", lost_steps=lost, recovery_s=recovery, equal="bits")


def test_a_node_is_announced_to_go(
    tmp_path: Path, kill_store: Path, undisturbed: Undisturbed, kill_report: Callable[..., None]
) -> None:
    run, blows = on_two_nodes(
        "notice", tmp_path, kill_store, **{"survival.max_failures": 0, "checkpoints.every_steps": 50}
    )
    trace, witness = Trace(run), Witness(tmp_path / "witness.jsonl")
    in_time = [commit for commit in witness.events("commit") if blows["noticed_at"] < commit["time"] < blows["hurt_at"]]
    extra = [commit for commit in in_time if commit["step"] not in (20, 40, 50, 60)]
    lost, recovery = trace.lost_steps(), trace.recovery_s(blows["hurt_at"])
    assert extra, in_time
    assert lost <= 15, "half of the notice, at half a second a step, is worth twenty steps"
    assert [len(start["pids"]) for start in witness.events("start")] == [2, 2]
    assert exact_curves(run) == exact_curves(undisturbed("tokenizer"))
    kill_report(
        "node announced to go 20 s before, then lost",
        lost_steps=lost,
        recovery_s=recovery,
        committed_after_s=round(extra[0]["time"] - blows["noticed_at"], 1) if extra else None,
        equal="bits",
    )


def test_a_node_is_not_replaced_for_a_while(
    tmp_path: Path, kill_store: Path, undisturbed: Undisturbed, kill_report: Callable[..., None]
) -> None:
    elastic = {"min_workers": 1, "survival.replacement_wait_s": 15, "survival.resize_every_s": 5}
    run, blows = on_two_nodes("elastic", tmp_path, kill_store, **elastic)
    trace, witness = Trace(run), Witness(tmp_path / "witness.jsonl")
    lost = trace.lost_steps()
    shrunk, grown = trace.recovery_s(blows["hurt_at"]), trace.recovery_s(blows["replaced_at"])
    assert [len(start["pids"]) for start in witness.events("start")] == [2, 1, 2]
    found, expected = exact_curves(run), exact_curves(undisturbed("tokenizer"))
    assert found["window_digest"] == expected["window_digest"]
    for name, curve in expected.items():
        assert [step for step, _ in found[name]] == [step for step, _ in curve]
        values = [value for _, value in curve]
        assert [value for _, value in found[name]] == pytest.approx(values, rel=1e-5, abs=1e-7), name
    assert trace.steps()[-1][0] == NUM_STEPS
    kill_report("node lost, replaced late", lost_steps=lost, shrunk_s=shrunk, grown_s=grown, equal="1e-5")
