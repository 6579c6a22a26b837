"""What the training runs of all stages share: settings, places, and when two runs train the same."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, model_validator

from neurolm.config import as_dict, config, digest, override
from neurolm.datasets.ingest import Step
from neurolm.eeg.mixture import MixtureConfig
from neurolm.text.corpus import CorpusConfig
from neurolm.tracking import TrackingConfig
from neurolm.training.batches import BatchConfig
from neurolm.training.checkpoint_policy import CheckpointsConfig, ResumeConfig
from neurolm.training.deepspeed_config import DeepSpeedEngineConfig
from neurolm.training.engine import EngineConfig, TorchEngineConfig
from neurolm.training.not_finite import NotFiniteConfig
from neurolm.training.optimizer import OptimizerConfig
from neurolm.training.profiling import ProfileConfig
from neurolm.training.stage import Precision
from neurolm.training.survival import SurvivalConfig

HELD_OUT_CROPS = 16
"""Crops of held-out text that a run which reads text measures its language on."""


@config
class ResourcesConfig:
    """What one worker asks of the cluster."""

    cpus_per_worker: Annotated[float, Field(gt=0)] = 1.0
    """CPUs of a training worker; rounded, at least one, its threads of torch."""
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0.0
    """GPUs of a training worker."""
    reader_cpus: Annotated[float, Field(gt=0)] = 0.25
    """CPUs of the Ray Data actor that reads for one worker."""
    peak_flops: Annotated[float, Field(gt=0)] | None = None
    """Operations a second that one worker's device could do at most, for MFU; null: a known GPU's data sheet."""

    @property
    def threads(self) -> int:
        """Threads of torch in a training worker."""
        return max(1, round(self.cpus_per_worker))


@config
class TrainingRun(Step):
    """Settings that all three stages share."""

    run_id: str | None = None
    """Name of the run, the stage's name if null; running the same id again resumes it."""
    epochs: Annotated[int, Field(gt=0)]
    """Passes over the training windows."""
    batch: BatchConfig
    """Sizes of one step."""
    mixture: MixtureConfig = Field(default_factory=MixtureConfig)
    """How often each data set is seen."""
    optimizer: OptimizerConfig
    """AdamW and its schedule."""
    engine: EngineConfig = Field(default_factory=TorchEngineConfig)
    """torch or deepspeed."""
    precision: Precision = "float32"
    """float32, or bfloat16: products under autocast; losses and the quantizer stay in float32, and so do weights and
    gradients unless the DeepSpeed engine's ``weights`` says otherwise."""
    activation_checkpointing: bool = False
    """Keep only the input of each transformer block that learns and compute the block again in the backward pass: less
    memory, about a third more work."""
    compile: bool = False
    """Compile the transformer blocks with torch.compile; pays on GPUs, after minutes at the first step."""
    validations: Annotated[int, Field(gt=0)] = 4
    """How many times a run validates (and reports), evenly spread; the last time at its end."""
    validation_windows: Annotated[int, Field(gt=0)] | None = None
    """Validate on about so many windows, the same each time, of each class its share; at the end also on all."""
    checkpoints: CheckpointsConfig = Field(default_factory=CheckpointsConfig)
    """What the run can be resumed from."""
    not_finite: NotFiniteConfig = Field(default_factory=NotFiniteConfig)
    """What happens where a loss or a gradient is not finite."""
    resume: ResumeConfig = Field(default_factory=ResumeConfig)
    """What may have changed since the run was begun."""
    corpus: CorpusConfig = Field(default_factory=CorpusConfig)
    """English text that is learnt beside the EEG."""
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)
    """MLflow."""
    resources: ResourcesConfig = Field(default_factory=ResourcesConfig)
    """CPUs and GPUs."""
    min_workers: Annotated[int, Field(gt=0)] | None = None
    """Go on with as few workers where machines are lost, and with up to ``workers`` again; null: always ``workers``."""
    survival: SurvivalConfig = Field(default_factory=SurvivalConfig)
    """What happens when workers or nodes fail."""
    profile: ProfileConfig | None = None
    """Steps that torch's profiler traces, e.g. ``{first_step: 10, last_step: 12}``; null: none."""

    @model_validator(mode="after")
    def _settings_go_together(self) -> "TrainingRun":
        if self.batch.size < 2 * self.workers:
            raise ValueError(
                f"batch.size {self.batch.size} is too small for {self.workers} workers; use {2 * self.workers} or more"
            )
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers {self.min_workers} is more than workers {self.workers}")
        if isinstance(self.engine, DeepSpeedEngineConfig):
            self.engine.refuse_for(self.precision, self.resources.gpus_per_worker)
        return self

    @property
    def stage_name(self) -> str:
        """tokenizer, pretrain or instruct."""
        name: str = self.stage  # type: ignore[attr-defined]
        return name

    @property
    def name(self) -> str:
        """The run id."""
        return self.run_id or self.stage_name

    @property
    def folder(self) -> Path:
        """Where this run writes."""
        return self.out / self.name

    @property
    def checkpoint_storage(self) -> str:
        """Path or URI of the folder in which this run's checkpoints lie under its name."""
        return self.checkpoints.storage or str(self.out / "checkpoints")

    @property
    def earlier_model(self) -> Path | None:
        """The model folder that this stage starts from."""
        return None

    def alarms(self, metrics: Mapping[str, float]) -> list[str]:
        """What validation metrics say is wrong, in words for the user; nothing unless a stage looks for something."""
        return []

    def task_scores(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Of validation metrics, each task's score; only stage 3 has tasks."""
        return {}

    @property
    def held_out_crops(self) -> int:
        """Crops of held-out text on which stages 2 and 3 measure the language."""
        if self.corpus.held_out_crops is not None:
            return self.corpus.held_out_crops
        return HELD_OUT_CROPS if self.batch.num_crops else 0

    @property
    def training_store(self) -> Path:
        """The store this stage learns from."""
        return self.pretraining_store if self._reads_pretraining_store else self.store

    @property
    def training_tokens(self) -> Path | None:
        """The EEG tokens that this stage reads in place of signals; stage 1, which makes the encoder, has none."""
        if self.data.tokens == "none" or self.stage_name == "tokenizer":
            return None
        return self.pretraining_token_store if self._reads_pretraining_store else self.token_store

    @property
    def _reads_pretraining_store(self) -> bool:
        return self.stage_name != "instruct" and self.has_pretraining_data


@config
class UnlabelledRun(TrainingRun):
    """What the stages share that learn without labels, and so from stores of any size."""

    min_steps: Annotated[int, Field(ge=0)] = 0
    """Read the windows more often than ``epochs`` where they are so few that these have fewer optimizer steps."""
    max_steps: Annotated[int, Field(gt=0)] | None = None
    """End after so many optimizer steps where ``epochs`` have more; null: never."""

    @model_validator(mode="after")
    def _steps_are_a_range(self) -> "UnlabelledRun":
        if self.max_steps is not None and self.min_steps > self.max_steps:
            raise ValueError(f"min_steps {self.min_steps} is more than max_steps {self.max_steps}")
        return self


def training_digest(run: TrainingRun) -> str:
    """A digest of every setting that the trained weights depend on; a run id may only be resumed with the same.

    ``workers`` is none of them, since a step is the same on any number, to rounding; nor what only measures; nor
    ``not_finite``, which matters only where a run would have ended; what it left out is on record.
    """
    values = as_dict(run)
    own = "out", "tracking", "resources", "profile", "budget", "run_id", "sweep", "workers", "min_workers", "survival"
    for name in (*own, "checkpoints", "not_finite", "resume"):
        values.pop(name, None)
    for name in (
        "root",
        "store",
        "pretraining_store",
        "token_store",
        "pretraining_token_store",
        "privacy",
        "allow_leakage",
    ):
        values["data"].pop(name)
    values["corpus"].pop("held_out_crops")
    if run.training_tokens is None:
        values["data"].pop("tokens")
    values["data"]["pretraining_root"] = run.has_pretraining_data
    for name in ("sets", "pretraining_sets"):
        for data_set in values["data"][name].values():
            data_set.pop("folder")
    return digest(values)


R = TypeVar("R", bound=TrainingRun)


def without_raw_places(run: R) -> R:
    """The run without the places of raw recordings, which may be named after people; it trains the same."""
    places: dict[str, Any] = {"data.root": None, "data.pretraining_root": None, "data.privacy.key_file": None}
    places |= {f"data.sets.{name}.folder": "." for name in run.data.sets}
    places |= {f"data.pretraining_sets.{name}.folder": "." for name in run.data.pretraining_sets}
    if run.has_pretraining_data:
        places["data.pretraining_store"] = str(run.pretraining_store)
    return override(run, places)
