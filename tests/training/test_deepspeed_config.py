from typing import Any

import pytest

from neurolm.config import ConfigError, build
from neurolm.training.deepspeed_config import DeepSpeedEngineConfig
from neurolm.training.optimizer import OptimizerConfig
from neurolm.training.runs import STAGES
from neurolm.training.training_run import TrainingRun

OPTIMIZER = OptimizerConfig(learning_rate=1e-3, clip_norm=0.5)


def run_of(engine: dict[str, Any], stage: str = "pretrain", **settings: Any) -> TrainingRun:
    values = {
        "out": "runs",
        "data": {"sets": {}},
        "epochs": 1,
        "batch": {"size": 8},
        "optimizer": {"learning_rate": 1e-3},
        "engine": {"kind": "deepspeed"} | engine,
    }
    return build(STAGES[stage], values | settings, source="here.yaml")


def dictionary(**settings: Any) -> dict[str, Any]:
    engine = DeepSpeedEngineConfig(**settings)
    return engine.dictionary(OPTIMIZER, num_micro_batches=3, world_size=2, num_parameters=1000)


def test_the_whole_dictionary_follows() -> None:
    assert dictionary(overlap_communication=True) == {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 3,
        "train_batch_size": 6,
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
        "zero_force_ds_cpu_optimizer": False,
        "gradient_clipping": 0.5,
        "zero_optimization": {
            "stage": 1,
            "overlap_comm": True,
            "contiguous_gradients": True,
            "reduce_bucket_size": 1000,
            "allgather_bucket_size": 1000,
        },
    }
    zero3 = dictionary(
        zero_stage=3, offload_optimizer="cpu", offload_parameters="cpu", sub_group_size=50, max_live_parameters=7
    )["zero_optimization"]
    assert (zero3["offload_optimizer"], zero3["offload_param"]) == ({"device": "cpu"}, {"device": "cpu"})
    assert (zero3["sub_group_size"], zero3["stage3_max_live_parameters"]) == (50, 7)
    assert "bf16" not in dictionary()
    assert dictionary(weights="bfloat16")["bf16"] == {
        "enabled": True,
        "bf16_master_weights_and_grads": False,
        "bf16_optimizer_states": False,
    }
    assert all(dictionary(weights="bfloat16", states="bfloat16")["bf16"].values())


@pytest.mark.parametrize(
    ("engine", "settings", "message"),
    [
        ({"zero_stage": 0}, {}, r"engine\.deepspeed\.zero_stage: Input should be 1, 2 or 3"),
        ({"offload_parameters": "cpu", "zero_stage": 2}, {}, r"zero_stage is 2; set zero_stage to 3"),
        ({"states": "bfloat16"}, {"precision": "bfloat16"}, r"set weights to bfloat16 too"),
        ({"weights": "bfloat16"}, {}, r"cannot give products in precision: float32"),
        (
            {"weights": "bfloat16", "states": "bfloat16", "offload_optimizer": "cpu"},
            {"precision": "bfloat16"},
            r"CPUAdam, which neurolm does not use",
        ),
        ({"offload_optimizer": "nvme"}, {}, r"nvme and nvme_folder belong together"),
        ({"offload_optimizer": "nvme", "nvme_folder": "/disk", "zero_stage": 2}, {}, r"nvme needs ZeRO-3"),
        (
            {"offload_optimizer": "nvme", "nvme_folder": "/disk", "zero_stage": 3},
            {},
            r"nvme is refused on CPUs: .* gradients of zeros or garbage",
        ),
        ({"zero_stag": 2}, {}, r"no such setting; did you mean 'zero_stage'\?"),
        ({"elasticity": {}}, {}, r"elasticity is a key of DeepSpeed's own JSON: DeepSpeed itself has removed it"),
        ({"mics_shard_size": 4}, {}, r"mics_shard_size .* removed it; leave it out"),
        ({"zero_optimization": {"stage": 3}}, {}, r"zero_optimization .* stand in engine itself"),
        ({"train_batch_size": 32}, {}, r"train_batch_size .* it is batch\.size"),
        ({"amp": {}}, {}, r"Set the run's precision: bfloat16"),
    ],
)
def test_contradictions_and_foreign_keys_are_refused(
    engine: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_of(engine, **settings)


def test_nvme_is_for_gpus_and_a_tokenizer_keeps_exact_weights() -> None:
    nvme = {"offload_optimizer": "nvme", "nvme_folder": "/disk", "zero_stage": 3}
    run = run_of(nvme, resources={"gpus_per_worker": 1})
    assert run.engine.kind == "deepspeed"
    with pytest.raises(ConfigError, match=r"would round the latents that codes are chosen by"):
        run_of({"weights": "bfloat16"}, stage="tokenizer", precision="bfloat16")
