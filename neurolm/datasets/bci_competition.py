"""BCI Competition IV, data set 1: motor imagery, here unlabelled, for pre-training."""

from dataclasses import dataclass

import numpy as np

from neurolm.datasets.arrays import recording_of
from neurolm.datasets.dataset import Published, SourceFile
from neurolm.datasets.pretraining import PretrainingDataset
from neurolm.eeg.arrays import read_mat
from neurolm.eeg.recording import Recording, RecordingError

UV_PER_UNIT = 0.1
"""The publisher stores 16-bit values in steps of 0.1 µV."""


@dataclass(frozen=True, kw_only=True)
class BCICompetition(PretrainingDataset):
    """Calibration and evaluation of seven subjects (c, d and e are artificial) at 1000 Hz."""

    name: str = "bci_competition_iv_1"
    title: str = "BCI Competition IV, data set 1"
    layout: str = "BCICIV_calib_ds1<a-g>_1000Hz.mat and BCICIV_eval_ds1<a-g>_1000Hz.mat"
    pattern: str = r"BCICIV_(?:calib|eval)_ds1([a-g])_1000Hz\.mat"
    sampling_rate_hz: float | None = 1000.0
    mains_hz: float = 50.0
    channels: tuple[str, ...] = (
        "AF3", "AF4", "F5", "F3", "F1", "Fz", "F2", "F4", "F6", "FC5", "FC3", "FC1", "FCz", "FC2", "FC4", "FC6",
        "CFC7", "CFC5", "CFC3", "CFC1", "CFC2", "CFC4", "CFC6", "CFC8", "T7", "C5", "C3", "C1", "Cz", "C2", "C4", "C6",
        "T8", "CCP7", "CCP5", "CCP3", "CCP1", "CCP2", "CCP4", "CCP6", "CCP8", "CP5", "CP3", "CP1", "CPz", "CP2", "CP4",
        "CP6", "P5", "P3", "P1", "Pz", "P2", "P4", "P6", "PO1", "PO2", "O1", "O2",
    )  # fmt: skip
    licence: str = "free for research with citation (competition terms)"
    citation: str = (
        "Blankertz et al., The non-invasive Berlin brain-computer interface: fast acquisition of effective performance "
        "in untrained subjects, NeuroImage 37(2):539-550, 2007"
    )
    url: str = "https://www.bbci.de/competition/iv/"
    published: Published = Published(subjects=7, recordings=14)

    def read(self, source: SourceFile) -> Recording:
        """``cnt`` under the names in ``nfo.clab``, which must be the declared ones. Raises RecordingError."""
        variables = read_mat(source.path, ["cnt", "nfo"])
        try:
            names = tuple(str(name) for name in variables["nfo"].clab)
            rate_hz = float(variables["nfo"].fs)
        except (AttributeError, TypeError, ValueError):
            raise RecordingError(f"{source.path}: nfo has no channel names (clab) or rate (fs)") from None
        if names != self.channels or rate_hz != self.sampling_rate_hz:
            raise RecordingError(
                f"{source.path}: {len(names)} channels at {rate_hz:g} Hz; expected the {len(self.channels)} published "
                f"ones at {self.sampling_rate_hz:g} Hz"
            )
        signal = np.asarray(variables["cnt"], dtype=np.float64).T * UV_PER_UNIT
        return recording_of(source.path, signal, rate_hz, self.channels)
