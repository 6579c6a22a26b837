"""Published data sets, one file each: where their recordings lie, what they mean, how they are split."""

from neurolm.datasets.bids import BidsDataSet
from neurolm.datasets.dataset import EEGDataset
from neurolm.datasets.declared import DeclaredDataSet
from neurolm.datasets.folder import FolderDataSet
from neurolm.datasets.hmc import HMC
from neurolm.datasets.motor_imagery import MotorImagery
from neurolm.datasets.workload import Workload

LAYOUTS: dict[str, EEGDataset] = {data_set.name: data_set for data_set in (Workload(), HMC(), MotorImagery())}
"""Every data set by the name of its layout; `dataclasses.replace` changes a field such as ``window_s``."""

DECLARED_LAYOUTS: dict[str, type[DeclaredDataSet]] = {"folder": FolderDataSet, "bids": BidsDataSet}
"""Layouts that a YAML file declares (`declaration.Declaration`)."""
