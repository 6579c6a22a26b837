"""Published data sets, one file each: where their recordings lie, what they mean, how they are split."""

from neurolm.datasets.bci_competition import BCICompetition
from neurolm.datasets.bids import BidsDataSet
from neurolm.datasets.biosemi import EMOBRAIN, RAW_EEG_DATA, RESTING_STATE
from neurolm.datasets.dataset import EEGDataset
from neurolm.datasets.declared import DeclaredDataSet
from neurolm.datasets.folder import FolderDataSet
from neurolm.datasets.grasp_and_lift import GraspAndLift
from neurolm.datasets.hmc import HMC
from neurolm.datasets.inria_bci import InriaBCI
from neurolm.datasets.motor_imagery import MotorImagery
from neurolm.datasets.released_pickles import released_pickles_of
from neurolm.datasets.seed import SEED
from neurolm.datasets.seed_family import SEED_FRA, SEED_GER, SEED_V, SEEDIV
from neurolm.datasets.siena import Siena
from neurolm.datasets.spis import SPIS
from neurolm.datasets.target_nontarget import TargetNonTarget
from neurolm.datasets.tuab import TUAB
from neurolm.datasets.tueg import TUEG
from neurolm.datasets.tuev import TUEV
from neurolm.datasets.tusl import TUSL
from neurolm.datasets.workload import Workload

DOWNSTREAM: tuple[EEGDataset, ...] = (TUAB(), TUEV(), TUSL(), SEED(), HMC(), Workload())
"""The labelled sets of the paper's six tasks."""
PRETRAINING: tuple[EEGDataset, ...] = (
    TUEG(), SEEDIV(), SEED_V, SEED_GER, SEED_FRA, BCICompetition(), EMOBRAIN, GraspAndLift(), InriaBCI(),
    MotorImagery(), RAW_EEG_DATA, RESTING_STATE, Siena(), SPIS(), TargetNonTarget(),
)  # fmt: skip
"""The unlabelled sets that stages 1 and 2 learn from (paper, Table 6)."""
RELEASED_PICKLES: tuple[EEGDataset, ...] = tuple(
    released_pickles_of(data_set) for data_set in (TUAB(), TUEV(), TUSL(), HMC(), Workload(), TUEG())
)
"""What the released code's data makers write, by the names of the sets and ``_pickles``."""

LAYOUTS: dict[str, EEGDataset] = {
    data_set.name: data_set for data_set in (*DOWNSTREAM, *PRETRAINING, *RELEASED_PICKLES)
}
"""Every data set by the name of its layout; `dataclasses.replace` changes a field such as ``window_s``."""

DECLARED_LAYOUTS: dict[str, type[DeclaredDataSet]] = {"folder": FolderDataSet, "bids": BidsDataSet}
"""Layouts that a YAML file declares (`declaration.Declaration`)."""
