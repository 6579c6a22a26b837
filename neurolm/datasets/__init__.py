"""Published data sets, one file each: where their recordings lie, what they mean, how they are split."""

from neurolm.datasets.dataset import EEGDataset
from neurolm.datasets.hmc import HMC
from neurolm.datasets.motor_imagery import MotorImagery
from neurolm.datasets.workload import Workload

LAYOUTS: dict[str, EEGDataset] = {data_set.name: data_set for data_set in (Workload(), HMC(), MotorImagery())}
"""Every data set by the name of its layout; `dataclasses.replace` changes a field such as ``window_s``."""
