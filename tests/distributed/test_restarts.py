"""What Ray Train is told about failures, and the watchdog; no cluster is started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from neurolm.config import UserError, build, override
from neurolm.distributed.context import COMMIT_S, half_way
from neurolm.distributed.jobs import OWN_SESSION
from neurolm.distributed.restarts import (
    GRACE_S,
    failure_config,
    refuse_too_few_cpus,
    scaling_config,
    set_environment,
    torch_config,
)
from neurolm.training.runs import TokenizerRun
from tests.tiny import tiny_tokenizer_settings

START = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def run(tmp_path: Path) -> TokenizerRun:
    values = tiny_tokenizer_settings(tmp_path, tmp_path / "store") | {"workers": 3, "engine": {"kind": "deepspeed"}}
    return build(TokenizerRun, values, source="test")


def test_a_run_is_elastic_only_if_told(run: TokenizerRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(START, "1")
    assert scaling_config(run).num_workers == 3
    set_environment(run)
    assert float(os.environ[START]) == run.survival.start_timeout_s == 600
    elastic = override(run, {"min_workers": 1, "survival.resize_every_s": 7})
    scaling = scaling_config(elastic)
    assert (scaling.num_workers, scaling.elastic_resize_monitor_interval_s) == ((1, 3), 7)
    set_environment(elastic)
    assert float(os.environ[START]) == run.survival.replacement_wait_s == 30


def test_resources_of_a_worker(run: TokenizerRun) -> None:
    assert scaling_config(run).resources_per_worker == {"CPU": 0.5}
    with_gpu = scaling_config(override(run, {"resources.gpus_per_worker": 1}))
    assert with_gpu.use_gpu and with_gpu.resources_per_worker == {"CPU": 0.5, "GPU": 1}


def test_more_cpus_than_the_only_machine_has_are_refused(
    run: TokenizerRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 1.8})
    monkeypatch.delenv(OWN_SESSION, raising=False)
    refuse_too_few_cpus(run)  # 3 x (0.5 + 0.1)
    run = override(run, {"resources.cpus_per_worker": 1})
    refuse_too_few_cpus(override(run, {"min_workers": 1}))
    refuse_too_few_cpus(run)
    assert "asks for 3.3 CPUs" in caplog.text and "waits for more" in caplog.text
    monkeypatch.setenv(OWN_SESSION, "1")
    with pytest.raises(UserError, match=r"3 workers with resources.cpus_per_worker = 1 .* this machine has 1.8"):
        refuse_too_few_cpus(run)


def test_patience_reaches_every_limit_and_the_watchdog_comes_first(
    run: TokenizerRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = override(run, {"survival": {"worker_timeout_s": 100, "max_failures": 7}})
    for name in ("WORKER_HEALTH_CHECK_TIMEOUT_S", "COLLECTIVE_TIMEOUT_S"):
        monkeypatch.setenv(f"RAY_TRAIN_{name}", "1")
    set_environment(run)
    limit = 100 + GRACE_S
    for name in ("WORKER_HEALTH_CHECK_TIMEOUT_S", "COLLECTIVE_TIMEOUT_S"):
        assert float(os.environ[f"RAY_TRAIN_{name}"]) == limit
    assert torch_config(run).timeout_s == limit
    failures = failure_config(run)
    assert (failures.max_failures, failures.max_preemption_failures) == (7, -1)


def test_checkpoints_come_closer_before_a_node_goes() -> None:
    times, now = [0.0], 0.0
    while (later := half_way(now, 120.0)) is not None:
        times.append(now := later)
    assert times == [0, 60, 90, 105, 112.5, 116.25][: len(times)]
    assert 120 - times[-1] < 2 * COMMIT_S


def test_the_watchdog_says_where_a_process_hangs_and_ends_it() -> None:
    program = (
        "import time\n"
        "from neurolm.distributed.context import Watchdog\n"
        "dog = Watchdog(timeout_s=1, first_timeout_s=1000)\n"
        "for _ in range(4):\n"
        "    time.sleep(0.5); dog.beat()\n"
        "print('alive', flush=True)\n"
        "def stuck():\n"
        "    time.sleep(1000)\n"
        "stuck()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (1, "alive\n")
    assert "Timeout" in done.stderr and "in stuck" in done.stderr
