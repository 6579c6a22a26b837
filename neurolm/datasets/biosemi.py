"""Three unlabelled sets from BioSemi amplifiers, for pre-training: Emobrain, Raw EEG Data, Resting State."""

from dataclasses import dataclass

from neurolm.datasets.dataset import Published
from neurolm.datasets.pretraining import PretrainingDataset

BIOSEMI_64: tuple[str, ...] = (
    "Fp1", "AF7", "AF3", "F1", "F3", "F5", "F7", "FT7", "FC5", "FC3", "FC1", "C1", "C3", "C5", "T7", "TP7", "CP5",
    "CP3", "CP1", "P1", "P3", "P5", "P7", "P9", "PO7", "PO3", "O1", "Iz", "Oz", "POz", "Pz", "CPz", "Fpz", "Fp2",
    "AF8", "AF4", "AFz", "Fz", "F2", "F4", "F6", "F8", "FT8", "FC6", "FC4", "FC2", "FCz", "Cz", "C2", "C4", "C6", "T8",
    "TP8", "CP6", "CP4", "CP2", "P2", "P4", "P6", "P8", "P10", "PO8", "PO4", "O2",
)  # fmt: skip
"""The 64 electrodes of a BioSemi cap in the amplifier's order."""
_UNDER_PROBES = frozenset({"Fp1", "Fpz", "Fp2", "AF7", "AFz", "AF8", "F5", "F6", "F7", "F8"})


@dataclass(frozen=True, kw_only=True)
class BioSemi(PretrainingDataset):
    """BDF files without a reference; the band-pass removes their large offsets."""

    sampling_rate_hz: float | None = 256.0
    mains_hz: float = 60.0
    channels: tuple[str, ...] = BIOSEMI_64


EMOBRAIN = BioSemi(
    name="emobrain",
    title="eNTERFACE06_EMOBRAIN",
    layout="Data/EEG/Part<subject>_IAPS_SES<session>_EEG_fNIRS_<date>.bdf",
    pattern=r"(?i:part)(\d)_IAPS_(?i:ses)\d_EEG_fNIRS_\d{8}\.bdf",
    sampling_rate_hz=1024.0,
    mains_hz=50.0,
    # The optical probes lay on the forehead, where ten of the 64 electrodes were left out.
    channels=tuple(name for name in BIOSEMI_64 if name not in _UNDER_PROBES),
    licence="free for research with citation (eNTERFACE'06)",
    citation="Savran et al., Emotion detection in the loop from brain signals and facial images, eNTERFACE'06, 2006",
    url="http://enterface.tel.fer.hr/docs/database_files/eNTERFACE06_EMOBRAIN.html",
    published=Published(subjects=5),
)
RAW_EEG_DATA = BioSemi(
    name="raw_eeg_data",
    title="Raw EEG Data (Trujillo, category learning)",
    layout="EEG_Cat_Study4_II_II_S<subject>.bdf and EEG_Cat_Study4_<...>_RBII_S<subject>.bdf",
    pattern=r".+_(?:RB-?)?II_S(\d+)\.bdf",
    licence="CC0 1.0 (Texas Data Repository)",
    citation=(
        "Trujillo, Mental effort and information-processing costs are inversely related to global brain free energy "
        "during visual categorization, Front. Neurosci. 13:1292, 2019"
    ),
    url="https://doi.org/10.18738/T8/SS2NHB",
)
RESTING_STATE = BioSemi(
    name="resting_state",
    title="Resting State EEG Data (Trujillo)",
    layout="EEG_Cat_Study4_Resting_S<subject>.bdf",
    pattern=r".+_Resting_S(\d+)\.bdf",
    licence="CC0 1.0 (Texas Data Repository)",
    citation=(
        "Trujillo et al., The effect of electroencephalogram (EEG) reference choice on information-theoretic measures "
        "of the complexity and integration of EEG signals, Front. Neurosci. 11:425, 2017"
    ),
    url="https://doi.org/10.18738/T8/EG0LJI",
    published=Published(subjects=22, recordings=22),
)
