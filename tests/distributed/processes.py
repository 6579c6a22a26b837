"""Job scripts and Ray heads as processes of their own, which are ended with all that they started and nothing else."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from neurolm.config import as_yaml
from neurolm.training.training_run import TrainingRun

ROOT = Path(__file__).parents[2]


class Family:
    """A process and everything that it has started so far."""

    def __init__(self, command: Sequence[str], log: Path, environment: dict[str, str]) -> None:
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                command,
                stdout=file,
                stderr=file,
                env=environment,
                cwd=ROOT,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
            )
        self._known: dict[int, psutil.Process] = {}

    def members(self) -> list[psutil.Process]:
        """All processes seen so far that still run."""
        if self.process.poll() is None:
            root = psutil.Process(self.process.pid)
            for one in [root, *root.children(recursive=True)]:
                self._known.setdefault(one.pid, one)
        return [one for one in self._known.values() if _runs(one)]

    def is_over(self) -> bool:
        """Whether the first process has ended; what it had started by now is remembered for `end`."""
        self.members()
        return self.process.poll() is not None

    def strike(self, *names: str) -> None:
        """SIGKILL to the first process and to its descendants of these names, all at once."""
        marked = [one for one in self.members() if one.pid == self.process.pid or one.name() in names]
        assert len(marked) > len(names), f"{names} are not all among {[one.name() for one in self.members()]}"
        for one in marked:
            one.kill()
        self.process.wait(30)

    def end(self) -> None:
        """Kill whatever is left."""
        for one in self.members():
            if one.is_running():
                one.kill()
        psutil.wait_procs(list(self._known.values()), timeout=30)
        self.process.wait(30)


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):  # it may end between two questions
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without any trace of a Ray that runs here, and with the repository's own packages."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | changes


@contextmanager
def train_script(run: TrainingRun, folder: Path, **changes: str) -> Iterator[Family]:
    """`ray_jobs/train.py` on a run, with a Ray session of its own."""
    config = folder / "run.yaml"
    config.write_text(as_yaml(run))
    command = [sys.executable, str(ROOT / "ray_jobs" / "train.py"), str(config)]
    family = Family(command, folder / "script.log", environment(**changes))
    try:
        yield family
    finally:
        family.end()


class Head:
    """A Ray head on ports of its own, with a token, to which jobs are submitted as users do."""

    def __init__(self, family: Family, environment: dict[str, str]) -> None:
        self.family = family
        self.environment = environment

    def ray(self, *arguments: str, check: bool = True) -> str:
        """A `ray` command that talks to this head."""
        command = [str(Path(sys.executable).parent / "ray"), *arguments]
        done = subprocess.run(command, env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=600)
        said = done.stdout + done.stderr  # ray writes its answers to either
        assert not check or done.returncode == 0, said
        return said

    def submit(self, name: str, *command: str) -> None:
        """Submit a job and leave it to itself; it runs where the repository is, not in a copy."""
        self.ray("job", "submit", "--no-wait", "--submission-id", name, "--", *command)

    def status(self, name: str) -> str:
        """Whether a job has succeeded, stopped or failed; else it is still under way."""
        said = self.ray("job", "status", name, check=False)
        return next((word for word in ("succeeded", "stopped", "failed") if word in said), "under way")


@contextmanager
def head(folder: Path, *, stop_wait_s: int) -> Iterator[Head]:
    """`ray start --head` that lives as long as the block."""
    ports = _free_ports(4)
    sockets = tempfile.mkdtemp(prefix="ray-")  # the path of a Unix socket must be short
    env = environment(
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN=secrets.token_hex(16),
        RAY_JOB_STOP_WAIT_TIME_S=str(stop_wait_s),
        RAY_ADDRESS=f"127.0.0.1:{ports[0]}",
        RAY_API_SERVER_ADDRESS=f"http://127.0.0.1:{ports[1]}",
    )
    options = {
        "--node-ip-address": "127.0.0.1",
        "--port": ports[0],
        "--dashboard-host": "127.0.0.1",
        "--dashboard-port": ports[1],
        "--dashboard-agent-listen-port": ports[2],
        "--ray-client-server-port": ports[3],
        "--temp-dir": sockets,
        "--num-cpus": 2,
        "--object-store-memory": 200 * 2**20,
    }
    given = [f"{name}={value}" for name, value in options.items()]
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--disable-usage-stats", *given]
    family = Family(command, folder / "head.log", {name: value for name, value in env.items() if name != "RAY_ADDRESS"})
    try:
        running = Head(family, env)
        end = time.monotonic() + 300
        while True:
            family.members()
            listing = subprocess.run(
                [command[0], "job", "list"], env=env, capture_output=True, text=True, timeout=120, check=False
            )
            if listing.returncode == 0:
                break
            assert time.monotonic() < end and family.process.poll() is None, (folder / "head.log").read_text()
            time.sleep(1)
        yield running
    finally:
        family.end()
        shutil.rmtree(sockets, ignore_errors=True)


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def mlflow_status(run: TrainingRun) -> list[str]:
    """How MLflow says that the runs of this name ended."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{run.out / 'mlflow.db'}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    return [one.info.status for one in runs if one.info.run_name == run.name]


def committed_steps(run: TrainingRun) -> list[int]:
    """Steps of the whole checkpoints that are kept, the latest last."""
    folder = run.out / "checkpoints" / run.name
    return sorted(int(path.parent.name.split("-")[1]) for path in folder.glob("step-*/manifest-0.json"))
