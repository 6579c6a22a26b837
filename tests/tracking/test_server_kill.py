"""Kill test 10: the MLflow server dies, the training is killed and resumed meanwhile; nothing is missing or twice."""

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from neurolm.tracking.delivery import read_delivered
from tests.tiny import write_tiny_store

STEP_S = 0.1

TRAINING = """
import sys, time
from neurolm.config import build
from neurolm.training import worker
from neurolm.training.engine import TorchEngine
from neurolm.training.runs import STAGES

class Steady(TorchEngine):
    def step(self):
        time.sleep(float(sys.argv[4]))
        return super().step()

worker.TorchEngine = Steady
run = build(STAGES["tokenizer"], {
    "stage": "tokenizer", "out": sys.argv[1], "data": {"store": sys.argv[2], "sets": {"noise": {"layout": "workload"}}},
    "epochs": 100, "validations": 2, "checkpoints": {"every_steps": 20}, "batch": {"size": 4},
    "optimizer": {"learning_rate": 1e-3}, "tracking": {"uri": sys.argv[3]},
    "model": {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "decoder_layers": 1, "codebook_size": 16,
              "codebook_dim": 8},
}, source="test")
worker.train_locally(run, show_progress=False)
"""


class Server:
    """A real ``mlflow server`` on this machine, which can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--backend-store-uri", f"sqlite:///{self._folder / 'mlflow.db'}"),
            *("--artifacts-destination", str(self._folder / "artifacts"), "--workers", "1"),
        ]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, cwd=self._folder, start_new_session=True
            )
        wait_for(self._is_up, 600, "the server")

    def stop(self) -> None:
        """Kill it with its workers."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _is_up(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not come within {seconds:g} s"
        time.sleep(0.2)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    server = Server(folder)
    yield server
    server.stop()


def metric_lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    whole = path.read_text().rpartition("\n")[0]
    entries = []
    for line in whole.splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue  # a killed process left it
    return [entry for entry in entries if entry["event"] == "metrics"]


@pytest.mark.kill
@pytest.mark.timeout(3600)
def test_mlflow_down_costs_nothing(tmp_path: Path, server: Server) -> None:
    from mlflow.tracking import MlflowClient

    store = write_tiny_store(make(tmp_path / "store"), 12)
    out = tmp_path / "out"
    record = out / "tokenizer" / "tracking.jsonl"

    def train() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", TRAINING, str(out), str(store), server.uri, str(STEP_S)]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def last_step() -> int:
        return max((entry["step"] for entry in metric_lines(record)), default=0)

    def is_sent(step: int) -> bool:
        assert training.poll() is None or training.returncode == 0, training.communicate()[1]
        return sent() >= step

    def sent() -> int:
        delivered = read_delivered(out / "tokenizer")
        return delivered.last_steps.get("loss", 0) if delivered is not None else 0

    server.start()
    training = train()
    try:
        wait_for(lambda: is_sent(20), 600, "the first values in MLflow")
        stopped_at = last_step()
        server.stop()
        wait_for(lambda: last_step() >= stopped_at + 50, 600, "steps without a server")
        training.kill()
        training.communicate()
        killed_at, sent_before = last_step(), sent()
        training = train()
        wait_for(lambda: last_step() >= killed_at + 30, 600, "steps of the resumed run without a server")
        assert sent() == sent_before, "nothing can have been sent"
        server.start()
        _, errors = training.communicate(timeout=900)
    finally:
        training.kill()
    assert training.returncode == 0, errors
    assert errors.count("does not answer") == 1 and "sends the rest" not in errors

    client = MlflowClient(server.uri)
    (run,) = client.search_runs([client.get_experiment_by_name("neurolm").experiment_id])
    assert run.info.status == "FINISHED"
    lines = metric_lines(record)
    expected = {(name, entry["step"]) for entry in lines for name in entry["values"]}
    repeated = Counter(entry["step"] for entry in lines if "loss" in entry["values"])
    assert {step for _, step in expected if step} >= set(range(1, 301)), "every step was recorded"
    assert any(number > 1 for number in repeated.values()), "the resumed run repeated steps after its checkpoint"
    for name in {name for name, _ in expected}:
        steps = [metric.step for metric in client.get_metric_history(run.info.run_id, name.replace("%", "_"))]
        assert sorted(steps) == sorted(step for one, step in expected if one == name), name

    seconds = {entry["step"]: entry["values"]["seconds_per_step"] for entry in lines if "loss" in entry["values"]}
    up = statistics.median(seconds[step] for step in range(10, stopped_at))
    down = statistics.median(seconds[step] for step in range(stopped_at + 1, killed_at))
    print(f"seconds per step: {up:.4f} with the server, {down:.4f} without")
    assert down < 1.3 * up


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder
