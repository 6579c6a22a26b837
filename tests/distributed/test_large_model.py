"""NeuroLM-XL, all 1.7 B parameters, on a CPU: trained by both stages, killed, resumed, exported, and asked a question.

Half an hour on 2 cores with 22 GiB of memory free and 40 GB of disk.
"""

import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from neurolm.tracking import FILE_NAME, read_curves
from neurolm.training.runs import load_run
from tests.distributed.processes import ROOT, Family, committed_steps, environment

pytestmark = [pytest.mark.xl, pytest.mark.timeout(3 * 3600), pytest.mark.filterwarnings("default")]
CONFIGS = ROOT / "ray_jobs" / "configs" / "xl-cpu"
PEAK_GIB = 22
SUBJECTS = ("00", "01", "02")


@pytest.fixture(scope="module")
def recordings(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three subjects of eegmat."""
    if psutil.virtual_memory().available < PEAK_GIB * 2**30 - 2**28:
        pytest.skip(f"{psutil.virtual_memory().available / 2**30:.1f} GiB of memory are free, expected {PEAK_GIB}")
    folder = tmp_path_factory.mktemp("eegmat")
    for subject in SUBJECTS:
        for file in sorted((test_data / "eegmat").glob(f"Subject{subject}_*.edf")):
            (folder / file.name).symlink_to(file)
    return folder


def test_all_of_xl(recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = {"data.root": str(recordings), "out": str(tmp_path / "out")}
    given = [f"{name}={value}" for name, value in places.items()]
    for script, file in (("preprocess.py", "data.yaml"), ("train.py", "tokenizer.yaml")):
        finish(Family(job(script, file, given), tmp_path / "log", quiet_environment()))
    run = load_run(CONFIGS / "pretrain.yaml", places)

    began = Family(job("train.py", "pretrain.yaml", given), tmp_path / "log", quiet_environment())
    try:
        peak = watch(began, until=lambda: bool(committed_steps(run)))
        assert not began.is_over(), began.log.read_text()[-3000:]
        began.strike("ray::RayTrainWorker")
    finally:
        began.end()
    killed_after = committed_steps(run)[-1]
    peak = max(peak, finish(Family(job("train.py", "pretrain.yaml", given), tmp_path / "log", quiet_environment())))
    assert peak < PEAK_GIB
    curves = read_curves(run.folder / FILE_NAME)
    losses = dict(curves["loss"])
    steps = sorted(losses)
    assert len(steps) >= 10 and steps == list(range(1, len(steps) + 1)), "no step is lost"
    assert sum(losses[step] for step in steps[-3:]) < 0.8 * sum(losses[step] for step in steps[:3])

    exported = tmp_path / "exported"
    (checkpoint,) = (run.out / "checkpoints" / "pretrain").glob(f"step-{steps[-1]:08d}-*")
    neurolm("export-checkpoint", str(checkpoint), "--out", str(exported))
    files = [folder / "model.safetensors" for folder in (exported, run.folder / "model")]
    assert files[0].read_bytes() == files[1].read_bytes()
    shutil.rmtree(exported)

    finish(Family(job("train.py", "instruct.yaml", given), tmp_path / "log", quiet_environment()))
    recording = recordings / f"Subject{SUBJECTS[-1]}_2.edf"
    answer = json.loads(neurolm("predict", str(tmp_path / "out/instruct/model"), str(recording), "--json"))
    with capsys.disabled():
        told = {
            "losses": [round(losses[step], 3) for step in steps],
            "seconds_per_step": statistics.median(seconds for _, seconds in curves["seconds_per_step"]),
            "peak_gib": round(peak, 2),
            "killed_after_step": killed_after,
            "answer": answer,
        }
        print(json.dumps(told, indent=1))


def job(script: str, file: str, given: list[str]) -> list[str]:
    """The command line of a job on one of the shipped configs."""
    return [sys.executable, str(ROOT / "ray_jobs" / script), str(CONFIGS / file), *given]


def quiet_environment() -> dict[str, str]:
    """Without Ray's memory monitor, which ends workers when 95 % of a machine are in use."""
    return environment(RAY_memory_monitor_refresh_ms="0")


def watch(family: Family, until: Callable[[], bool]) -> float:
    """Wait, or until the job is over; the most memory that a training worker held at any time, in GiB."""
    peak = 0.0
    while not (until() or family.is_over()):
        for one in family.members():
            with suppress(psutil.NoSuchProcess):
                if one.name().startswith("ray::RayTrainWorker"):
                    peak = max(peak, one.memory_info().rss / 2**30)
        time.sleep(0.5)
    return peak


def finish(family: Family) -> float:
    """Wait for a job that ends well, as `watch`."""
    try:
        peak = watch(family, until=family.is_over)
        assert family.process.returncode == 0, family.log.read_text()[-3000:]
    finally:
        family.end()
    return peak


def neurolm(*arguments: str) -> str:
    """What the command line program prints."""
    command = [str(Path(sys.executable).parent / "neurolm"), *arguments]
    done = subprocess.run(command, env=quiet_environment(), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
