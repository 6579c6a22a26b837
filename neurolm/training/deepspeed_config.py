"""The settings of DeepSpeed: one typed object, from which its whole dictionary follows; there is no JSON file."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from neurolm.config import Location, UserError, config
from neurolm.training.optimizer import OptimizerConfig

Numbers = Literal["float32", "bfloat16"]

_DERIVED = "neurolm works it out from the run's own settings (batch, optimizer, workers); leave it out"
_REMOVED = "DeepSpeed itself has removed it; leave it out"
_FOREIGN = {
    "train_batch_size": "it is batch.size",
    "train_micro_batch_size_per_gpu": "it is batch.micro_size",
    "gradient_accumulation_steps": f"it follows from batch.micro_size: {_DERIVED}",
    "gradient_clipping": "it is optimizer.clip_norm",
    "optimizer": "it is the run's own section optimizer",
    "scheduler": "it is part of the run's own section optimizer",
    "activation_checkpointing": "it is a setting of the run, beside engine, for every engine",
    "bf16": "set weights: bfloat16 and, for the optimizer too, states: bfloat16",
    "bf16_master_weights_and_grads": "set states: bfloat16",
    "bf16_optimizer_states": "set states: bfloat16",
    "fp16": "its numbers need loss scaling, which neurolm does not do; set weights: bfloat16",
    "torch_autocast": "it is the run's setting precision: bfloat16",
    "zero_optimization": "its settings stand in engine itself: zero_stage, offload_optimizer, reduce_bucket_size, ...",
    "stage": "it is zero_stage",
    "overlap_comm": "it is overlap_communication",
    "allgather_bucket_size": "it is gather_bucket_size",
    "stage3_prefetch_bucket_size": "it is prefetch_bucket_size",
    "stage3_max_live_parameters": "it is max_live_parameters",
    "stage3_param_persistence_threshold": "it is persistence_threshold",
    "offload_param": "it is offload_parameters",
    "elasticity": f"{_REMOVED}. A run's number of workers may change, its batches stay the same",
    "curriculum_learning": f"{_REMOVED}. Which windows are seen how often is the section mixture",
    "amp": f"{_REMOVED}. Set the run's precision: bfloat16",
} | dict.fromkeys(
    (
        "nebula",
        "compression_training",
        "quantize_training",
        "sparse_gradients",
        "sparse_attention",
        "eigenvalue",
        "progressive_layer_drop",
        "graph_harvesting",
        "zeropp_loco_param",
        "mics_shard_size",
        "mics_hierarchical_params_gather",
    ),
    _REMOVED,
)
"""Keys of DeepSpeed's own JSON that people may write here, and what to do instead."""


@config
class DeepSpeedEngineConfig:
    """DeepSpeed ZeRO over the workers of a Ray Train run."""

    kind: Literal["deepspeed"] = "deepspeed"
    zero_stage: Literal[1, 2, 3] = 1
    """What ZeRO partitions over workers: 1 optimizer states, 2 also gradients, 3 also parameters."""
    weights: Numbers = "float32"
    """What weights and gradients are kept in while passes are computed; bfloat16 needs the run's precision bfloat16."""
    states: Numbers = "float32"
    """What the optimizer keeps its master weights, their gradients and AdamW's moments in; bfloat16 needs such weights.

    DeepSpeed calls these settings bf16_master_weights_and_grads and bf16_optimizer_states.
    """
    offload_optimizer: Literal["none", "cpu", "nvme"] = "none"
    """Where optimizer states and gradients lie and AdamW runs, if not on the GPU; nvme is refused on CPUs."""
    offload_parameters: Literal["none", "cpu"] = "none"
    """Where the partitioned weights of ZeRO-3 lie until a pass needs them, if not on the GPU."""
    nvme_folder: Location | None = None
    """Where optimizer states lie with offload_optimizer nvme: a folder on a fast disk of every node."""
    overlap_communication: bool = False
    """Reduce gradients while the backward pass runs; pays on GPUs."""
    reduce_bucket_size: Annotated[int, Field(gt=0)] = 200_000_000
    """Elements reduced at a time."""
    gather_bucket_size: Annotated[int, Field(gt=0)] = 500_000_000
    """ZeRO-1 and 2: elements of updated weights gathered at a time."""
    prefetch_bucket_size: Annotated[int, Field(ge=0)] = 50_000_000
    """ZeRO-3: elements of weights gathered ahead of their use."""
    max_live_parameters: Annotated[int, Field(ge=0)] = 1_000_000_000
    """ZeRO-3: elements of gathered weights that may wait for their next use instead of being given back at once."""
    persistence_threshold: Annotated[int, Field(ge=0)] = 100_000
    """ZeRO-3: weights of fewer elements stay whole on every worker."""
    sub_group_size: Annotated[int, Field(gt=0)] = 1_000_000_000
    """ZeRO-3: elements that the optimizer updates at a time; fewer take less memory for the moment."""

    @model_validator(mode="before")
    @classmethod
    def _explain_deepspeed_keys(cls, given: Any) -> Any:
        for name in getattr(given, "kwargs", given) or ():
            if name in _FOREIGN:
                raise ValueError(f"{name} is a key of DeepSpeed's own JSON: {_FOREIGN[name]}")
        return given

    def __post_init__(self) -> None:
        if self.offload_parameters != "none" and self.zero_stage < 3:
            raise UserError(
                f"offload_parameters moves what ZeRO-3 partitions, zero_stage is {self.zero_stage}; set zero_stage to 3"
            )
        if self.states == "bfloat16" and self.weights == "float32":
            raise UserError("states: bfloat16 are less exact than their weights: float32; set weights to bfloat16 too")
        if self.states == "bfloat16" and self.offload_optimizer != "none":
            raise UserError(
                "offload_optimizer with states: bfloat16 would need DeepSpeed's compiled CPUAdam, which neurolm does "
                "not use; set states to float32 or offload_optimizer to none"
            )
        if (self.offload_optimizer == "nvme") != (self.nvme_folder is not None):
            raise UserError("offload_optimizer: nvme and nvme_folder belong together; set both or none of them")
        if self.offload_optimizer == "nvme" and self.zero_stage < 3:
            raise UserError(
                f"offload_optimizer: nvme needs ZeRO-3, zero_stage is {self.zero_stage}; set zero_stage to 3"
            )

    @property
    def partitions_weights(self) -> bool:
        """Whether a weight is whole nowhere but where and while a pass uses it."""
        return self.zero_stage == 3

    def refuse_for(self, precision: Numbers, gpus_per_worker: float) -> None:
        """Raise UserError where the run's other settings contradict these."""
        if self.weights == "bfloat16" and precision == "float32":
            raise UserError("engine.weights: bfloat16 cannot give products in precision: float32; set precision too")
        if self.offload_optimizer == "nvme" and not gpus_per_worker:
            raise UserError(
                "engine.offload_optimizer: nvme is refused on CPUs: there DeepSpeed 0.19 gives large tensors gradients "
                "of zeros or garbage, without a word; use cpu or none"
            )

    def dictionary(
        self, optimizer: OptimizerConfig, *, num_micro_batches: int, world_size: int, num_parameters: int
    ) -> dict[str, Any]:
        """DeepSpeed's own settings, all of them.

        DeepSpeed allocates the reduce bucket anew at every step, so a bucket larger than the model only costs: 800 MB
        of fresh memory a step made a small model's step four times as long.
        """
        zero: dict[str, Any] = {
            "stage": self.zero_stage,
            "overlap_comm": self.overlap_communication,
            "contiguous_gradients": True,
            "reduce_bucket_size": min(self.reduce_bucket_size, num_parameters),
        }
        if self.partitions_weights:
            zero |= {
                "sub_group_size": self.sub_group_size,
                "stage3_prefetch_bucket_size": self.prefetch_bucket_size,
                "stage3_max_live_parameters": self.max_live_parameters,
                "stage3_max_reuse_distance": self.max_live_parameters,
                "stage3_param_persistence_threshold": self.persistence_threshold,
            }
        else:
            zero["allgather_bucket_size"] = min(self.gather_bucket_size, num_parameters)
        if self.offload_optimizer != "none":
            zero["offload_optimizer"] = {"device": self.offload_optimizer}
            if self.nvme_folder is not None:
                zero["offload_optimizer"]["nvme_path"] = str(self.nvme_folder)
        if self.offload_parameters != "none":
            zero["offload_param"] = {"device": self.offload_parameters}
        settings: dict[str, Any] = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": num_micro_batches,
            "train_batch_size": num_micro_batches * world_size,
            "steps_per_print": 2**31,
            "wall_clock_breakdown": False,
            "zero_optimization": zero,
            "zero_force_ds_cpu_optimizer": False,  # torch's AdamW, offloaded or not: nothing to compile
        }
        if self.weights == "bfloat16":
            is_low = self.states == "bfloat16"
            settings["bf16"] = {
                "enabled": True,
                "bf16_master_weights_and_grads": is_low,
                "bf16_optimizer_states": is_low,
            }
        if optimizer.clip_norm is not None:
            settings["gradient_clipping"] = optimizer.clip_norm
        return settings
