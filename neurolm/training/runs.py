"""What a training run is: one frozen config for each of the three stages, and what follows from it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, model_validator

from neurolm.config import ConfigError, Location, as_dict, build, config, digest, override, read
from neurolm.datasets.ingest import Step
from neurolm.eeg.mixture import MixtureConfig
from neurolm.models.codebook_health import codebook_alarms
from neurolm.models.language_model import LanguageModelConfig
from neurolm.models.lora import LoraConfig
from neurolm.models.neural_tokenizer_config import NeuralTokenizerConfig
from neurolm.models.neurolm import NeuroLMConfig
from neurolm.text.corpus import CorpusConfig
from neurolm.text.instructions import Task, chosen_tasks
from neurolm.text.task import TaskSettings
from neurolm.tracking import TrackingConfig
from neurolm.training.batches import BatchConfig
from neurolm.training.checkpoint_policy import CheckpointsConfig, ResumeConfig
from neurolm.training.deepspeed_config import DeepSpeedEngineConfig
from neurolm.training.engine import EngineConfig, TorchEngineConfig
from neurolm.training.instruct import InstructLossConfig
from neurolm.training.keeping import Keep
from neurolm.training.not_finite import NotFiniteConfig
from neurolm.training.optimizer import OptimizerConfig
from neurolm.training.pretrain import PretrainLossConfig
from neurolm.training.profiling import ProfileConfig
from neurolm.training.stage import Precision
from neurolm.training.survival import SurvivalConfig
from neurolm.training.tokenizer import TokenizerLossConfig

HELD_OUT_CROPS = 16
"""Crops of held-out text that a run which reads text measures its language on."""

Attention = Literal["sdpa", "flex"]
"""Torch's scaled dot product attention with a mask, or its FlexAttention."""


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


@config
class TokenizerRun(UnlabelledRun):
    """Stage 1: the text-aligned neural tokenizer."""

    stage: Literal["tokenizer"] = "tokenizer"
    """Which stage this is."""
    model: NeuralTokenizerConfig = Field(default_factory=NeuralTokenizerConfig)
    """The vector-quantised encoder and its decoders."""
    losses: TokenizerLossConfig = Field(default_factory=TokenizerLossConfig)
    """Weights of the tokenizer's losses."""
    text_table: str | None = None
    """A transformers model (name or path) whose token embeddings stand for text; null: a seeded random table."""

    @model_validator(mode="after")
    def _weights_are_exact(self) -> "TokenizerRun":
        if isinstance(self.engine, DeepSpeedEngineConfig) and self.engine.weights == "bfloat16":
            raise ValueError(
                "engine.weights: bfloat16 would round the latents that codes are chosen by; train the tokenizer with "
                "float32 (precision: bfloat16 is allowed: it spares them)"
            )
        return self

    def alarms(self, metrics: Mapping[str, float]) -> list[str]:
        """What validation says is wrong with the codebook."""
        return codebook_alarms(metrics, self.model.codebook_size)


@config
class PretrainRun(UnlabelledRun):
    """Stage 2: multi-channel autoregression."""

    stage: Literal["pretrain"] = "pretrain"
    """Which stage this is."""
    tokenizer: Location | None = None
    """Model folder of the tokenizer; null: ``tokenizer/model`` in ``out``."""
    language_model: LanguageModelConfig = Field(default_factory=LanguageModelConfig)
    """The causal language model."""
    attention: Attention = "sdpa"
    """How the language model computes attention: sdpa everywhere, or on GPUs flex, which skips masked blocks."""
    spatial_embedding_init_std: Annotated[float, Field(gt=0)] = 1.0
    """Initial deviation of the language model's channel embedding; 1 as released, 0.02 suits small models."""
    feature_norm: Literal["none", "first_batch"] = "none"
    """Whether the tokenizer's features are standardised, by the first batch, before the language model reads them."""
    channel_gain: Annotated[float, Field(ge=0)] = 0.0
    """How much faster than other weights factors by channel and feature are learnt; 0, as released, has none."""
    losses: PretrainLossConfig = Field(default_factory=PretrainLossConfig)
    """Weights of EEG and text losses."""

    @property
    def tokenizer_folder(self) -> Path:
        """The model folder of stage 1."""
        return self.tokenizer or self.out / "tokenizer" / "model"

    @property
    def earlier_model(self) -> Path:
        """The tokenizer."""
        return self.tokenizer_folder

    def model_config(self, tokenizer: NeuralTokenizerConfig) -> NeuroLMConfig:
        """The model that this run trains behind a tokenizer."""
        return NeuroLMConfig(
            tokenizer=tokenizer,
            language_model=self.language_model,
            spatial_embedding_init_std=self.spatial_embedding_init_std,
            feature_norm=self.feature_norm,
            channel_gain=self.channel_gain,
        )


@config
class InstructRun(TrainingRun):
    """Stage 3: multi-task instruction tuning."""

    stage: Literal["instruct"] = "instruct"
    """Which stage this is."""
    pretrained: Location | None = None
    """Model folder of stage 2; null: ``pretrain/model`` in ``out``."""
    compat_pad_to: Annotated[int, Field(gt=0)] | None = None
    """Replaces the pretrained model's ``tokenizer.compat_pad_to``; null keeps it. Released: 276 here, 1024 before."""
    text_start: Literal["window", "batch"] | None = None
    """Replaces the pretrained model's ``text_start``; null keeps it. Released: batch."""
    tasks: tuple[str, ...] = ("workload",)
    """Names of the tasks to learn, each on its data set in the store."""
    own_tasks: dict[str, Task] = Field(default_factory=dict)
    """Tasks of your own by name, for ``tasks`` to choose from beside those that neurolm defines."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Replaces the pretrained model's ``language_model.dropout``; null keeps it."""
    task_settings: dict[str, TaskSettings] = Field(default_factory=dict)
    """How this run asks and judges some of its tasks: ``{hmc: {shuffle_options: true, metric: cohen_kappa}}``."""
    attention: Attention = "sdpa"
    """How the language model computes attention: sdpa everywhere, or on GPUs flex, which skips masked blocks."""
    lora: LoraConfig | None = None
    """Tune adapters of the language model's blocks instead of their weights; null tunes all of it."""
    losses: InstructLossConfig = Field(default_factory=InstructLossConfig)
    """Weights of answer and text losses."""
    selection: Literal["auroc", "balanced_accuracy"] = "balanced_accuracy"
    """Validation metric, averaged over tasks, that chooses the checkpoint and ranks the trials of a sweep.

    A task with a ``metric`` of its own is judged by that.
    """

    keep: Keep = "best"
    """Which weights are kept: of the best mean of ``selection`` over tasks, of the last validation (final), or of the
    best mean rank over tasks (ranks), which counts every task alike; then the folder ``pareto`` of the run has the
    weights of all validations that no other beats in every task."""
    patience: Annotated[int, Field(gt=0)] | None = None
    """End after so many validations without a better one; null: never. The learning rate's schedule stays as it was."""

    @model_validator(mode="after")
    def _final_is_the_last(self) -> "InstructRun":
        if self.keep == "final" and self.patience is not None:
            raise ValueError("patience waits for better weights, and keep: final takes the last; leave one of them out")
        return self

    @model_validator(mode="after")
    def _settings_are_of_tasks(self) -> "InstructRun":
        for setting, names in (
            ("task_settings", self.task_settings),
            ("losses.task_weights", self.losses.task_weights),
        ):
            if unknown := sorted(set(names) - set(self.tasks)):
                raise ValueError(f"{setting}: {', '.join(unknown)} not among the run's tasks, {', '.join(self.tasks)}")
        return self

    @property
    def asked_tasks(self) -> list[Task]:
        """The run's tasks as it asks them. Raises TaskError where nobody defined one."""
        tasks = chosen_tasks(self.tasks, self.own_tasks)
        return [self.task_settings[task.name].of(task) if task.name in self.task_settings else task for task in tasks]

    @property
    def pretrained_folder(self) -> Path:
        """The model folder of stage 2."""
        return self.pretrained or self.out / "pretrain" / "model"

    @property
    def earlier_model(self) -> Path:
        """The pre-trained model."""
        return self.pretrained_folder

    def task_scores(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Of validation metrics, each task's own ``metric`` or ``selection``; where undefined, balanced accuracy."""
        names = {task.name: task.metric or self.selection for task in self.asked_tasks}
        return {
            task: metrics.get(f"{task}/{name}", metrics[f"{task}/balanced_accuracy"]) for task, name in names.items()
        }

    @property
    def switches(self) -> dict[str, Any]:
        """Dotted settings of the pretrained model's config that this run replaces."""
        chosen = {
            "tokenizer.compat_pad_to": self.compat_pad_to,
            "text_start": self.text_start,
            "language_model.dropout": self.dropout,
        }
        return {name: value for name, value in chosen.items() if value is not None}


STAGES: dict[str, type[TrainingRun]] = {"tokenizer": TokenizerRun, "pretrain": PretrainRun, "instruct": InstructRun}


def load_run(path: str | Path, overrides: dict[str, Any] | None = None) -> TrainingRun:
    """Read a stage's config; its ``stage`` says which class it is. Raises ConfigError."""
    values = read(path, overrides)
    stage = values.get("stage")
    if stage not in STAGES:
        raise ConfigError(f"{path}: stage: found {stage!r}, expected one of {', '.join(STAGES)}")
    return build(STAGES[stage], values, source=str(path))


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
