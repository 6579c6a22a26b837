"""SPIS: resting state before a long task, here unlabelled, for pre-training."""

from dataclasses import dataclass

import numpy as np

from neurolm.datasets.arrays import recording_of
from neurolm.datasets.biosemi import BIOSEMI_64
from neurolm.datasets.dataset import Published, SourceFile
from neurolm.datasets.pretraining import PretrainingDataset
from neurolm.eeg.arrays import read_mat
from neurolm.eeg.recording import Recording, RecordingError

UV_PER_UNIT = 1e-3
"""Published without a unit; read as nV, and reading fails where that cannot be."""


@dataclass(frozen=True, kw_only=True)
class SPIS(PretrainingDataset):
    """Eyes open and eyes closed, 2.5 minutes each, of ten subjects; recorded at 2,048 Hz and published at 256 Hz."""

    name: str = "spis"
    title: str = "SPIS Resting State Dataset"
    layout: str = "Pre-SART EEG/S<subject>_restingPre_{EC,EO}.mat"
    pattern: str = r"(S\d{2})_restingPre_E[CO]\.mat"
    sampling_rate_hz: float | None = 256.0
    mains_hz: float = 50.0
    channels: tuple[str, ...] = BIOSEMI_64
    licence: str = "copyright of the authors, free for research with citation"
    citation: str = (
        "Torkamani-Azar et al., Prediction of reaction time and vigilance variability from spatio-spectral features of "
        "resting-state EEG in a long sustained attention task, IEEE JBHI 24(9):2550-2558, 2020"
    )
    url: str = "https://github.com/mastaneht/SPIS-Resting-State-Dataset"
    published: Published = Published(subjects=10, recordings=20)

    def read(self, source: SourceFile) -> Recording:
        """Rows 1 to 64 of ``dataRest``; EOG and triggers follow them. Raises RecordingError."""
        signal = np.asarray(read_mat(source.path, ["dataRest"])["dataRest"], dtype=np.float64)
        if signal.ndim != 2 or len(signal) < len(self.channels):
            raise RecordingError(f"{source.path}: dataRest has shape {signal.shape}, expected 68 rows")
        electrodes = signal[: len(self.channels)] * UV_PER_UNIT
        return recording_of(source.path, electrodes, float(self.sampling_rate_hz or 0), self.channels)
