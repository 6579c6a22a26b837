"""Grasp-and-Lift: hand movements (WAY-EEG-GAL), here unlabelled, for pre-training."""

from dataclasses import dataclass

from neurolm.datasets.arrays import read_csv, recording_of
from neurolm.datasets.dataset import Published, SourceFile
from neurolm.datasets.pretraining import PretrainingDataset
from neurolm.eeg.recording import Recording

UV_PER_UNIT = 0.1
"""The amplifier's step; the publisher gives integers without a unit."""


@dataclass(frozen=True, kw_only=True)
class GraspAndLift(PretrainingDataset):
    """Ten series of each of 12 subjects; the competition's train and test files are used alike."""

    name: str = "grasp_and_lift"
    title: str = "Grasp-and-Lift EEG Detection"
    layout: str = "{train,test}/subj<subject>_series<series>_data.csv"
    pattern: str = r"(subj\d+)_series\d+_data\.csv"
    sampling_rate_hz: float | None = 500.0
    mains_hz: float = 50.0
    channels: tuple[str, ...] = (
        "Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8", "FC5", "FC1", "FC2", "FC6", "T7", "C3", "Cz", "C4", "T8", "TP9",
        "CP5", "CP1", "CP2", "CP6", "TP10", "P7", "P3", "Pz", "P4", "P8", "PO9", "O1", "Oz", "O2", "PO10",
    )  # fmt: skip
    licence: str = "Kaggle competition rules"
    citation: str = (
        "Luciw et al., Multi-channel EEG recordings during 3,936 grasp and lift trials with varying weight and "
        "friction, Sci. Data 1:140047, 2014"
    )
    url: str = "https://www.kaggle.com/c/grasp-and-lift-eeg-detection"
    published: Published = Published(subjects=12, recordings=120)

    def read(self, source: SourceFile) -> Recording:
        """The 32 columns. Raises RecordingError."""
        signal = read_csv(source.path, self.channels) * UV_PER_UNIT
        return recording_of(source.path, signal, float(self.sampling_rate_hz or 0), self.channels)
