"""What tests that kill something have in common: a store, runs that nothing happens to, and the record."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neurolm.training.training_run import TrainingRun


@pytest.fixture(scope="session")
def kill_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.distributed.survivors import write_store

    return write_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, kill_store: Path, ray_cluster: None
) -> Callable[[str], TrainingRun]:
    """Trains a stage, and those before it, without interruption; each once."""
    from neurolm.distributed.train import train
    from tests.distributed.survivors import make_run

    out = tmp_path_factory.mktemp("undisturbed")
    done: dict[str, TrainingRun] = {}

    def trained(stage: str) -> TrainingRun:
        for name in ("tokenizer", "pretrain", "instruct"):
            if name not in done:
                done[name] = make_run(name, out, kill_store)
                train(done[name], show_progress=False)
            if name == stage:
                break
        return done[stage]

    return trained


@pytest.fixture
def kill_report() -> Callable[..., None]:
    """Print what a kill test measured, and append it as a line of JSON to the file that NEUROLM_KILL_REPORT names."""

    def record(case: str, **measured: Any) -> None:
        line = json.dumps({"case": case, "time": round(time.time()), **measured})
        print(f"\n{line}")
        if path := os.environ.get("NEUROLM_KILL_REPORT"):
            with open(path, "a") as file:
                file.write(line + "\n")

    return record
