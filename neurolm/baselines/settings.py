"""Settings of the baselines: which systems, about which tasks, and how those that have to be trained are trained."""

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from neurolm.config import ConfigError, Location, config, flatten, override
from neurolm.datasets.ingest import Step
from neurolm.text.instructions import Task
from neurolm.training.instruct import InstructLossConfig
from neurolm.training.optimizer import OptimizerConfig

BaselineName = Literal[
    "majority", "shuffled", "band_power", "log_covariance", "linear_probe", "random_neurolm",
    "eegnet", "eegconformer", "sparcnet", "contrawr", "cnn_transformer", "ffcl", "st_transformer", "biot", "labram",
]  # fmt: skip
"""Every system that can stand beside a NeuroLM."""
BASELINES: tuple[BaselineName, ...] = get_args(BaselineName)


@config
class BaselineTraining:
    """How a network is trained; the same for all but for ``training_of``."""

    epochs: Annotated[int, Field(gt=0)]
    """Passes over the training windows."""
    batch_size: Annotated[int, Field(ge=2)]
    """Windows of one step."""
    micro_size: Annotated[int, Field(ge=2)] | None = None
    """Most windows in one pass; null: all of the batch. Batch norms see one pass at a time."""
    optimizer: OptimizerConfig
    """AdamW and its schedule."""
    validations: Annotated[int, Field(gt=0)] = 10
    """How many times the validation subjects are looked at; the best of these moments is kept."""
    selection: Literal["auroc", "balanced_accuracy"] = "balanced_accuracy"
    """Validation metric that chooses it."""


@config
class BaselineRun(Step):
    """Single-task systems on the store and splits of a NeuroLM, one setting each."""

    tasks: tuple[str, ...] | None = None
    """Tasks, each learnt alone; null: every known task whose data set is in the store."""
    own_tasks: dict[str, Task] = Field(default_factory=dict)
    """Tasks of your own by name, as in stage 3."""
    baselines: Annotated[tuple[BaselineName, ...], Field(min_length=1)]
    """Which systems."""
    training: BaselineTraining
    """How networks are trained."""
    training_of: dict[BaselineName, dict[str, Any]] = Field(default_factory=dict)
    """What one system changes in it, by dotted name: {labram: {epochs: 5, optimizer.learning_rate: 5.0e-4}}."""
    losses: InstructLossConfig = Field(default_factory=InstructLossConfig)
    """Losses of ``random_neurolm``, as in stage 3."""
    tokenizer: Location | None = None
    """Model folder of the tokenizer that ``linear_probe`` reads; null: ``tokenizer/model`` in ``out``."""
    pretrained: Location | None = None
    """Model folder of stage 2 whose model ``random_neurolm`` has, without its weights; null: ``pretrain/model``."""
    prediction_batch_size: Annotated[int, Field(gt=0)] = 64
    """Windows in one pass without gradients."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where networks are trained."""

    @model_validator(mode="after")
    def _settings_of_one_are_settings(self) -> "BaselineRun":
        for name in self.training_of:
            try:
                self.training_for(name)
            except ConfigError as error:
                raise ValueError(f"training_of.{name}: {error}") from None
        return self

    def training_for(self, name: BaselineName) -> BaselineTraining:
        """How one system is trained. Raises ConfigError for a setting that is none."""
        return override(self.training, flatten(self.training_of.get(name, {})))

    @property
    def tokenizer_folder(self) -> Path:
        """The model folder of stage 1."""
        return self.tokenizer or self.out / "tokenizer" / "model"

    @property
    def pretrained_folder(self) -> Path:
        """The model folder of stage 2."""
        return self.pretrained or self.out / "pretrain" / "model"
