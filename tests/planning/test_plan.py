import json
import math
from pathlib import Path
from typing import Any

import pytest

from neurolm.cli import main
from neurolm.config import ConfigError, UserError
from neurolm.planning.plan import DoesNotFit, make_plan
from neurolm.planning.table import as_dict, table
from tests import tiny

CONFIGS = Path(__file__).parents[2] / "ray_jobs" / "configs"


def plan_of(name: str, overrides: dict[str, Any] | None = None, **settings: Any):  # type: ignore[no-untyped-def]
    settings = {"num_gpus": 2, "gpu_memory_gb": 24.0} | settings
    return make_plan(CONFIGS / f"{name}.yaml", overrides or {}, **settings)


@pytest.mark.parametrize("folder", ["demo", "workload"])
@pytest.mark.parametrize("stage", ["tokenizer", "pretrain", "instruct", "tune"])
def test_every_small_config_is_planned(folder: str, stage: str) -> None:
    plan = plan_of(f"{folder}/{stage}")
    best = plan.recommended
    assert best.fits
    assert (best.division.zero_stage, best.division.is_plain) == (1, True)
    assert best.micro_size * best.num_micro_batches == 16
    assert plan.flop_per_step > 0
    assert (plan.hours, plan.cost) == (None, None)
    assert json.loads(json.dumps(as_dict(plan)))["recommended"]["micro_size"] == best.micro_size
    assert "<- recommended" in table(plan)


def test_windows_steps_hours_and_cost_follow_from_the_store(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    tiny.write_tiny_store(tmp_path / "store", 70, mixed_shapes=True)
    settings: dict[str, Any] = {"mfu": 0.5, "tflops": 0.001, "price_per_gpu_hour": 3.0}
    plan = plan_of("workload/pretrain", {"out": str(tmp_path), "epochs": 4, "min_steps": 0}, **settings)
    assert {(one.num_channels, one.num_seconds): round(share * 70) for one, share in plan.windows.shares.items()} == {
        (2, 2): 46,
        (3, 2): 24,
    }
    assert plan.windows.largest.num_channels == 3
    assert plan.windows.hours == pytest.approx(70 * 2 / 3600)
    assert plan.num_steps == 4 * math.ceil(70 / 32)
    assert plan.seconds_per_step == pytest.approx(plan.flop_per_step / (2 * 1e9 * 0.5))
    assert plan.hours == pytest.approx(12 * plan.seconds_per_step / 3600)
    assert plan.cost == pytest.approx(plan.hours * 2 * 3.0)
    bounded = {3200: 500, 1280: 10 * 40, 320: 300}  # epochs: 10, max_steps: 500, min_steps: 300, batches of 32
    for num_windows, num_steps in bounded.items():
        assert plan_of("workload/pretrain", {"out": str(tmp_path)}, num_windows=num_windows).num_steps == num_steps
    assert f"{plan.num_steps:,} steps" in table(plan)


def test_before_there_is_a_store_layouts_say_what_windows_are() -> None:
    shapes = {(one.num_channels, one.num_seconds, one.task) for one in plan_of("demo/instruct").windows.shares}
    assert shapes == {(19, 4, "demo_workload"), (4, 30, "demo_sleep")}
    assert [str(one) for one in plan_of("workload/pretrain").windows.shares] == ["64 channels x 4 s"]
    given = plan_of("workload/pretrain", shapes="19x4, 23x10", num_windows=3600)
    assert {(one.num_channels, one.num_seconds) for one in given.windows.shares} == {(19, 4), (23, 10)}
    assert given.windows.hours == pytest.approx(7)
    rooted = plan_of("workload/pretrain", {"data.root": "/recordings"})
    assert [str(one) for one in rooted.windows.shares] == ["19 channels x 4 s"]


def test_the_operations_of_a_step_do_not_depend_on_how_it_is_divided() -> None:
    one, two = (plan_of("demo/pretrain", num_gpus=number) for number in (1, 2))
    assert one.flop_per_step == two.flop_per_step
    assert one.recommended.division.zero_stage == 0
    assert one.recommended.num_micro_batches == 1
    assert one.checkpoint_bytes == two.checkpoint_bytes  # the copy of the weights that ZeRO keeps is not in it


def test_less_memory_means_smaller_micro_batches_and_then_a_refusal() -> None:
    settings: dict[str, Any] = {"overrides": {"batch.size": 64, "language_model.text_merges": None}, "shapes": "64x8"}
    large, small = (plan_of("workload/pretrain", **settings, gpu_memory_gb=gb).recommended for gb in (8.0, 1.3))
    assert large.micro_size > small.micro_size >= 1
    assert small.num_micro_batches > large.num_micro_batches
    with pytest.raises(DoesNotFit, match=r"does not fit on 2 GPUs .*What would: GPUs of 2 GB \(ZeRO-\d") as caught:
        plan_of("workload/pretrain", **settings, gpu_memory_gb=1.05)
    assert "batch.text_size=0" in str(caught.value)


def test_blocks_are_computed_twice_only_where_nothing_else_fits() -> None:
    """A deep, narrow model: its activations are what does not fit."""
    overrides = {"language_model.num_layers": 24, "batch.text_size": 0, "batch.size": 2}
    settings: dict[str, Any] = {"overrides": overrides, "shapes": "128x16", "num_gpus": 1}
    roomy = plan_of("workload/pretrain", **settings)
    assert roomy.recommended.division.is_plain
    needed = next(one for one in roomy.options if one.division.checkpointing).memory.total
    plan = plan_of("workload/pretrain", **settings, gpu_memory_gb=1.01 * needed / 0.92e9 + 1)
    assert plan.recommended.division.checkpointing
    assert plan.recommended.flop_per_step > plan.flop_per_step
    assert plan.seconds_per_step > roomy.seconds_per_step
    assert "activation_checkpointing=true" in table(plan)
    assert not any(one.fits for one in plan.options if one.division.is_plain)


def test_states_in_bfloat16_are_smaller() -> None:
    full, mixed, low = (plan_of("demo/pretrain", states=states) for states in ("float32", "mixed", "bfloat16"))
    totals = [one.recommended.memory.weights + one.recommended.memory.optimizer for one in (full, mixed, low)]
    assert totals == sorted(totals, reverse=True)
    assert "planned as mixed; the config keeps them as float32" in table(mixed)
    low_by_config = plan_of(
        "demo/pretrain", {"precision": "bfloat16", "engine.weights": "bfloat16", "engine.states": "bfloat16"}
    )
    assert low_by_config.states == "bfloat16"
    assert low_by_config.recommended.memory == low.recommended.memory
    assert {one.division.offload for one in low_by_config.options} == {"none"}
    assert mixed.peak_flops == 312e12
    assert full.peak_flops == 19.5e12


def test_what_the_config_says_is_planned_too() -> None:
    plan = plan_of("demo/pretrain", {"engine.zero_stage": 2, "activation_checkpointing": True, "batch.micro_size": 4})
    division = plan.configured.division
    assert (division.zero_stage, division.checkpointing, division.offload) == (2, True, "none")
    assert plan.configured.micro_size == 4
    assert "configured   ZeRO-2, activation checkpointing, 4 windows" in table(plan)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_gpus": 0}, "--gpus 0: expected more than 0"),
        ({"gpu_memory_gb": math.nan}, "--gpu-memory-gb nan: expected more than 0"),
        ({"mfu": 1.5}, "--mfu 1.5: expected a share of the peak"),
        ({"gpu": "abacus"}, "--gpu abacus: not in the table of a100, h100"),
        ({"price_per_gpu_hour": -1.0}, "--price-per-gpu-hour -1.0: expected 0 or more"),
        ({"shapes": "64 by 16"}, "expected channels x seconds such as 64x16"),
        ({"num_gpus": 64}, "batch.size 32 is too small for 64 workers"),
    ],
)
def test_numbers_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan_of("demo/pretrain", **settings)


def test_a_pipeline_has_no_plan_of_its_own() -> None:
    with pytest.raises(ConfigError, match=r"is a pipeline; plan its stages one by one"):
        plan_of("demo/pipeline")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(CONFIGS / "demo" / "pretrain.yaml")
    main(["plan", config, "--gpus", "2", "--gpu-memory-gb", "8", "--windows", "640", "--json", "epochs=3"])
    plan = json.loads(capsys.readouterr().out)
    assert (plan["steps"], plan["gpus"], plan["cost"]) == (60, 2, None)
    assert plan["parameters"]["total"] == plan["parameters"]["trainable"] + plan["parameters"]["frozen"]
    for arguments in (["--gpu-memory-gb", "1.01"], ["--gpu-memory-gb", "8", "batch.sise=4"]):
        with pytest.raises(SystemExit) as caught:
            main(["plan", config, "--gpus", "2", *arguments])
        assert caught.value.code == 2
        assert "error: " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["plan", config, "--gpus", "2", "--gpu-memory-gb", "8", "--nonsense"])
