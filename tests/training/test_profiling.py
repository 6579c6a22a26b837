"""The profiler looks at the steps it is told, and its files open."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from neurolm.config import ConfigError, build
from neurolm.training.profiling import ProfileConfig, StepProfiler


def test_a_trace_of_two_steps_opens(tmp_path: Path) -> None:
    profiler = StepProfiler(ProfileConfig(first_step=2, last_step=3), tmp_path, torch.device("cpu"))
    for number in range(1, 6):
        with profiler.step(number):
            torch.mm(torch.ones(8 * number, 8), torch.ones(8, 8))
    assert sorted(path.name for path in (tmp_path / "profile").iterdir()) == ["steps-2-3.json.gz", "steps-2-3.txt"]
    with gzip.open(tmp_path / "profile" / "steps-2-3.json.gz", "rt") as file:
        trace = json.load(file)
    events = [event for event in trace["traceEvents"] if event.get("ph") == "X"]
    assert [event["name"] for event in events if event["name"].startswith("step ")] == ["step 2", "step 3"]
    shapes = [event["args"]["Input Dims"][0] for event in events if event["name"] == "aten::mm"]
    assert shapes == [[16, 8], [24, 8]]
    assert "aten::mm" in (tmp_path / "profile" / "steps-2-3.txt").read_text()


def test_a_run_resumed_within_the_steps_traces_the_rest(tmp_path: Path) -> None:
    profiler = StepProfiler(ProfileConfig(first_step=2, last_step=4), tmp_path, torch.device("cpu"))
    for number in range(4, 6):
        with profiler.step(number):
            torch.ones(2).sum()
    assert (tmp_path / "profile" / "steps-4-4.json.gz").is_file()


def test_nothing_is_traced_unless_asked(tmp_path: Path) -> None:
    with StepProfiler(None, tmp_path, torch.device("cpu")).step(1):
        pass
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="last_step 2 is before first_step 3"):
        build(ProfileConfig, {"first_step": 3, "last_step": 2}, source="x.yaml")
