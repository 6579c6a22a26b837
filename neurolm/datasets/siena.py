"""Siena Scalp EEG Database: long recordings of people with epilepsy, here unlabelled, for pre-training."""

from dataclasses import dataclass

from neurolm.datasets.dataset import Published
from neurolm.datasets.pretraining import PretrainingDataset


@dataclass(frozen=True, kw_only=True)
class Siena(PretrainingDataset):
    """The 29 scalp electrodes that all recordings share; windows of 35 s; the paper's table counts 31."""

    name: str = "siena"
    title: str = "Siena Scalp EEG Database 1.0.0"
    layout: str = "PN<subject>/PN<subject>-<number>.edf"
    pattern: str = r"(PN\d{2})-[\d.]+\.edf"
    sampling_rate_hz: float | None = 512.0
    mains_hz: float = 50.0
    channels: tuple[str, ...] = (
        "EEG Fp1", "EEG F3", "EEG C3", "EEG P3", "EEG O1", "EEG F7", "EEG T3", "EEG T5", "EEG Fc1", "EEG Fc5",
        "EEG Cp1", "EEG Cp5", "EEG F9", "EEG Fz", "EEG Cz", "EEG Pz", "EEG Fp2", "EEG F4", "EEG C4", "EEG P4",
        "EEG O2", "EEG F8", "EEG T4", "EEG T6", "EEG Fc2", "EEG Fc6", "EEG Cp2", "EEG Cp6", "EEG F10",
    )  # fmt: skip
    licence: str = "CC BY 4.0"
    citation: str = (
        "Detti et al., EEG synchronization analysis for seizure prediction: a study on data of noninvasive recordings, "
        "Processes 8(7):846, 2020"
    )
    url: str = "https://physionet.org/content/siena-scalp-eeg/1.0.0/"
    published: Published = Published(subjects=14, recordings=41)
