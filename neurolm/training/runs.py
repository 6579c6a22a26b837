"""What a training run is: one frozen config for each of the three stages."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from neurolm.config import ConfigError, Location, build, config, read
from neurolm.models.codebook_health import codebook_alarms
from neurolm.models.language_model import LanguageModelConfig
from neurolm.models.lora import LoraConfig
from neurolm.models.neural_tokenizer_config import NeuralTokenizerConfig
from neurolm.models.neurolm import NeuroLMConfig
from neurolm.text.instructions import Task, chosen_tasks
from neurolm.text.task import TaskSettings
from neurolm.training.deepspeed_config import DeepSpeedEngineConfig
from neurolm.training.instruct import InstructLossConfig
from neurolm.training.keeping import Keep
from neurolm.training.pretrain import PretrainLossConfig
from neurolm.training.tokenizer import TokenizerLossConfig
from neurolm.training.training_run import TrainingRun, UnlabelledRun

Attention = Literal["sdpa", "flex"]
"""Torch's scaled dot product attention with a mask, or its FlexAttention."""


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
