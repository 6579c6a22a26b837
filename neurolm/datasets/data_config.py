"""Settings of the data: which recordings, how they are preprocessed, split and named, where the stores lie."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from neurolm.config import Location, as_dict, config
from neurolm.datasets import DECLARED_LAYOUTS
from neurolm.datasets.declaration import Declaration, declared
from neurolm.datasets.splits import SplitConfig
from neurolm.eeg.preprocessing import PreprocessingConfig
from neurolm.eeg.quality import QualityConfig
from neurolm.eeg.window_table import SignalType


@config
class DataSetConfig:
    """One data set below ``data.root`` or ``data.pretraining_root``."""

    layout: str
    """Which published layout the folder has, README lists them; or folder or bids, which need a ``declaration``."""
    folder: Path = Path(".")
    """Folder of this data set, relative to the root."""
    declaration: Annotated[Declaration | None, BeforeValidator(declared)] = None
    """What the recordings of a folder or BIDS set are: a YAML file, relative to the one that names it."""

    @property
    def described(self) -> str | dict[str, Any]:
        """What a model folder keeps, so that `layout_described` finds the layout again: a name or a declaration."""
        if self.declaration is None:
            return self.layout
        return {"layout": self.layout, "declaration": as_dict(self.declaration)}

    @model_validator(mode="after")
    def _agree(self) -> "DataSetConfig":
        if (self.layout in DECLARED_LAYOUTS) != (self.declaration is not None):
            needs = "needs" if self.layout in DECLARED_LAYOUTS else "has no"
            raise ValueError(f"layout: {self.layout} {needs} `declaration`; those are for layout: folder or bids")
        if self.declaration is not None and (self.layout == "bids") != (self.declaration.bids is not None):
            raise ValueError(f"layout: {self.layout}: {self.declaration.file}: bids is for layout: bids alone")
        return self


@config
class PrivacyConfig:
    """How subjects and recordings are named."""

    key_file: Location | None = None
    """File of the secret key for keyed ids, one per group; null: privacy.key in NEUROLM_HOME (~/.neurolm)."""


@config
class DataConfig:
    """Which recordings, how they are preprocessed and split, and where the stores lie."""

    root: Location | None = None
    """Folder of the raw recordings of the downstream data sets."""
    sets: dict[str, DataSetConfig] = Field(default_factory=lambda: {"workload": DataSetConfig(layout="workload")})
    """Data sets below ``root``, by the name that tasks use."""
    pretraining_root: Location | None = None
    """Folder of the recordings that stages 1 and 2 learn from; null: the training subjects of ``root``."""
    pretraining_sets: dict[str, DataSetConfig] = Field(
        default_factory=lambda: {"motor_imagery": DataSetConfig(layout="motor_imagery")}
    )
    """Data sets below ``pretraining_root``; their labels are not used. Unset: EEGMMIDB, in the folder itself."""
    pretraining_window_s: Annotated[float, Field(gt=0)] | None = None
    """Length of a pre-training window in seconds; null: what fills the paper's 1024 tokens, 16 s at 64 channels."""
    split: SplitConfig = Field(default_factory=SplitConfig)
    """How the data sets below ``root`` are divided into train, val and test."""
    preprocessing: PreprocessingConfig = Field(default_factory=PreprocessingConfig)
    """Band-pass, notch and sampling rate; the defaults are the paper's."""
    quality: QualityConfig = Field(default_factory=QualityConfig)
    """From where on channels are flagged; by default flags are stored and drop nothing."""
    signal_dtype: SignalType = "float32"
    """How signals are stored; float16 halves a store and keeps 11 bits of every value."""
    privacy: PrivacyConfig = Field(default_factory=PrivacyConfig)
    """How subjects and recordings are named."""
    allow_leakage: Annotated[str, Field(min_length=1)] | None = None
    """Why training data may share subjects or signals with a test split; null: such training is refused."""
    store: Location | None = None
    """Folder of the downstream store; null: ``store`` in ``out``."""
    pretraining_store: Location | None = None
    """Folder of the pre-training store; null: ``pretraining_store`` in ``out`` (used with ``pretraining_root``)."""
    tokens: Literal["none", "bfloat16", "float32"] = "none"
    """What stages 2 and 3 read: signals (none), or EEG tokens that the frozen encoder wrote once, in this precision.

    float32 gives the losses of signals; bfloat16 takes half the space and rounds the features.
    """
    token_store: Location | None = None
    """Folder of the downstream store's EEG tokens; null: ``token_store`` in ``out``."""
    pretraining_token_store: Location | None = None
    """Folder of the pre-training store's EEG tokens; null: ``pretraining_token_store`` in ``out``."""


@config
class Step:
    """Settings that every step of the pipeline takes under the same names."""

    out: Location
    """Folder of the results."""
    data: DataConfig = Field(default_factory=DataConfig)
    """Recordings and stores."""
    seed: int = 0
    """Seed of whatever the step draws."""
    workers: Annotated[int, Field(gt=0)] = 1
    """Training workers; other steps take what the cluster has."""
    budget: Literal["quick", "full"] = "full"
    """quick applies the settings below ``quick:`` in the YAML file."""

    @property
    def store(self) -> Path:
        """The downstream store."""
        return self.data.store or self.out / "store"

    @property
    def pretraining_store(self) -> Path:
        """The store of unlabelled windows, used where there is one (`has_pretraining_data`)."""
        return self.data.pretraining_store or self.out / "pretraining_store"

    @property
    def token_store(self) -> Path:
        """The EEG tokens of the downstream store."""
        return self.data.token_store or self.out / "token_store"

    @property
    def pretraining_token_store(self) -> Path:
        """The EEG tokens of the store of unlabelled windows."""
        return self.data.pretraining_token_store or self.out / "pretraining_token_store"

    @property
    def has_pretraining_data(self) -> bool:
        """Whether stages 1 and 2 have a store of their own."""
        return self.data.pretraining_root is not None or self.data.pretraining_store is not None
