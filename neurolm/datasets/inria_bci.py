"""Inria BCI Challenge (NER 2015): a P300 speller, here unlabelled, for pre-training."""

from dataclasses import dataclass

from neurolm.datasets.arrays import read_csv, recording_of
from neurolm.datasets.dataset import Published, SourceFile
from neurolm.datasets.pretraining import PretrainingDataset
from neurolm.eeg.recording import Recording


@dataclass(frozen=True, kw_only=True)
class InriaBCI(PretrainingDataset):
    """Five sessions of each of 26 subjects, recorded at 600 Hz and published at 200 Hz.

    The publisher gives no unit; values are taken for µV, and reading fails where that cannot be.
    """

    name: str = "inria_bci"
    title: str = "BCI Challenge @ NER 2015"
    layout: str = "{train,test}/Data_S<subject>_Sess<session>.csv"
    pattern: str = r"Data_(S\d{2})_Sess\d{2}\.csv"
    sampling_rate_hz: float | None = 200.0
    mains_hz: float = 50.0
    channels: tuple[str, ...] = (
        "Fp1", "Fp2", "AF7", "AF3", "AF4", "AF8", "F7", "F5", "F3", "F1", "Fz", "F2", "F4", "F6", "F8", "FT7", "FC5",
        "FC3", "FC1", "FCz", "FC2", "FC4", "FC6", "FT8", "T7", "C5", "C3", "C1", "Cz", "C2", "C4", "C6", "T8", "TP7",
        "CP5", "CP3", "CP1", "CPz", "CP2", "CP4", "CP6", "TP8", "P7", "P5", "P3", "P1", "Pz", "P2", "P4", "P6", "P8",
        "PO7", "POz", "PO8", "O1", "O2",
    )  # fmt: skip
    licence: str = "Kaggle competition rules"
    citation: str = (
        "Perrin et al., Objective and subjective evaluation of online error correction during P300-based spelling, "
        "Adv. Hum.-Comput. Interact. 2012:578295, 2012"
    )
    url: str = "https://www.kaggle.com/c/inria-bci-challenge"
    published: Published = Published(subjects=26, recordings=130)

    def read(self, source: SourceFile) -> Recording:
        """The 56 electrodes; the files write PO8 with a zero. Raises RecordingError."""
        columns = ["P08" if channel == "PO8" else channel for channel in self.channels]
        signal = read_csv(source.path, columns)
        return recording_of(source.path, signal, float(self.sampling_rate_hz or 0), self.channels)
