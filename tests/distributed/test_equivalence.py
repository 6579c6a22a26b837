"""Two workers of DeepSpeed, however they divide a model, train what one process of plain torch trains."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing

from tests.distributed import equivalence
from tests.distributed.equivalence import Record, comparable, record_alone, relative_difference, run_of

pytestmark = [pytest.mark.equivalence, pytest.mark.filterwarnings("default")]

ENGINES: dict[str, dict[str, Any]] = {
    "zero1": {"zero_stage": 1},
    "zero2": {"zero_stage": 2},
    "zero3": {"zero_stage": 3},
    "zero1-optimizer": {"zero_stage": 1, "offload_optimizer": "cpu"},
    "zero2-optimizer": {"zero_stage": 2, "offload_optimizer": "cpu"},
    "zero3-optimizer": {"zero_stage": 3, "offload_optimizer": "cpu"},
    "zero3-parameters": {"zero_stage": 3, "offload_parameters": "cpu"},
    "zero3-all": {"zero_stage": 3, "offload_optimizer": "cpu", "offload_parameters": "cpu"},
}
MEASURED = ("seconds_per_step", "data_wait_share", "validation_seconds", "throughput/", "memory/")
"""Metrics that no two trainings have in common."""
CHECKPOINTED = ("zero2", "zero3")
BLIND = "classifier.layers.2.bias"
"""Its gradient is the difference of two means that a classifier which knows nothing yet makes equal: all rounding."""


def variants() -> dict[str, tuple[str, Mapping[str, Any]]]:
    found: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for case in equivalence.CASES:
        for name, engine in ENGINES.items():
            if case in equivalence.SETTINGS or name in ("zero1", "zero3"):
                # Small weights are partitioned too, and the optimizer goes through them in several groups.
                small = {"kind": "deepspeed", "persistence_threshold": 0, "sub_group_size": 2_000}
                found[f"{case}-{name}"] = (case, {"engine": small | engine})
        for name in CHECKPOINTED:
            engine = {"kind": "deepspeed", "persistence_threshold": 0, **ENGINES[name]}
            found[f"{case}-{name}-checkpointed"] = (case, {"engine": engine, "activation_checkpointing": True})
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Record]]:
    """Each case in one process, on the models of the stages before; and where these are."""
    out = tmp_path_factory.mktemp("runs")
    equivalence.write_sources(out)
    return out, {case: record_alone(run_of(case, out, {})) for case in equivalence.CASES}


@pytest.fixture(scope="module")
def together(alone: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Record]:
    """Every variant, one after another in the same two processes."""
    folder = tmp_path_factory.mktemp("records")
    torch.multiprocessing.spawn(equivalence.worker, (folder, alone[0], variants()), nprocs=2)
    return {name: Record(**torch.load(folder / f"{name}.pt")) for name in variants()}


@pytest.mark.parametrize("name", variants())
def test_losses_norms_and_weights_are_those_of_one_process(
    name: str, alone: tuple[Path, dict[str, Record]], together: dict[str, Record]
) -> None:
    case, _ = variants()[name]
    expected, found = alone[1][case], together[name]
    assert expected.start.keys() == found.start.keys()
    for weight, tensor in expected.start.items():
        torch.testing.assert_close(found.start[weight], tensor, rtol=0, atol=0, msg=f"{weight} at the start")

    steps = range(1, equivalence.STEPS + 1)
    assert list(found.metrics) == list(expected.metrics) == list(steps)
    worst = 0.0
    for step in steps:
        for metric, value in expected.metrics[step].items():
            if not metric.startswith(MEASURED):
                assert found.metrics[step][metric] == pytest.approx(value, rel=1e-5, abs=1e-9), f"{metric}, step {step}"
        norms = [one.metrics[step]["gradient_norm"] for one in (expected, found)]
        worst = max(worst, abs(norms[1] / norms[0] - 1))

    differences = {
        weight: relative_difference(comparable(weight, tensor), comparable(weight, found.end[weight]))
        for weight, tensor in expected.end.items()
        if tensor.is_floating_point() and weight != BLIND
    }
    moved = [relative_difference(expected.start[weight], tensor) for weight, tensor in expected.end.items()]
    print(f"{name}: gradient norms within {worst:.1e}, weights within {max(differences.values()):.1e}")
    assert max(moved) > 1e-3, "nothing was learnt"
    assert {weight: value for weight, value in differences.items() if value > 1e-5} == {}


@pytest.mark.parametrize("case", equivalence.CASES)
def test_plain_torch_computes_blocks_again(case: str, alone: tuple[Path, dict[str, Record]]) -> None:
    expected = alone[1][case]
    found = record_alone(run_of(case, alone[0], {"activation_checkpointing": True, "run_id": f"{case}-again"}))
    for step, metrics in expected.metrics.items():
        assert found.metrics[step]["loss"] == metrics["loss"]
    for weight, tensor in expected.end.items():
        torch.testing.assert_close(found.end[weight], tensor, rtol=0, atol=0, msg=weight)
