"""Settings of the data: which recordings, how they are preprocessed, split and named, where the stores lie."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from neurolm.config import Location, config
from neurolm.datasets.splits import SplitConfig
from neurolm.eeg.preprocessing import PreprocessingConfig
from neurolm.eeg.window_table import SignalType


@config
class DataSetConfig:
    """One data set below ``data.root``."""

    layout: str
    """Which published layout the folder has: workload, hmc or motor_imagery."""
    folder: Path = Path(".")
    """Folder of this data set, relative to ``data.root``."""


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
    """Folder in EEGMMIDB's layout that stages 1 and 2 learn from; null: the training subjects of ``root``."""
    pretraining_window_s: Annotated[float, Field(gt=0)] = 16.0
    """Length of a pre-training window in seconds; the paper fills 1024 tokens: 16 s at 64 channels."""
    split: SplitConfig = Field(default_factory=SplitConfig)
    """How subjects are divided into train, val and test."""
    preprocessing: PreprocessingConfig = Field(default_factory=PreprocessingConfig)
    """Band-pass, notch and sampling rate; the defaults are the paper's."""
    signal_dtype: SignalType = "float32"
    """How signals are stored; float16 halves a store and keeps 11 bits of every value."""
    privacy: PrivacyConfig = Field(default_factory=PrivacyConfig)
    """How subjects and recordings are named."""
    store: Location | None = None
    """Folder of the downstream store; null: ``store`` in ``out``."""
    pretraining_store: Location | None = None
    """Folder of the pre-training store; null: ``pretraining_store`` in ``out`` (used with ``pretraining_root``)."""


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
        """The store of unlabelled windows, used where ``data.pretraining_root`` is set."""
        return self.data.pretraining_store or self.out / "pretraining_store"
