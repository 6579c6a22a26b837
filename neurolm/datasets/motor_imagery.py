"""EEGMMIDB: PhysioNet's motor movement and imagery recordings, here unlabelled, for pre-training."""

from dataclasses import dataclass

from neurolm.datasets.dataset import Published
from neurolm.datasets.pretraining import PretrainingDataset


@dataclass(frozen=True, kw_only=True)
class MotorImagery(PretrainingDataset):
    """109 subjects, 14 runs each. A few subjects were recorded at 128 Hz (S088, S092, S100)."""

    name: str = "motor_imagery"
    title: str = "EEG Motor Movement/Imagery Dataset (EEGMMIDB 1.0.0)"
    layout: str = "Sxxx/SxxxRyy.edf"
    pattern: str = r"(S\d{3})R\d{2}\.edf"
    sampling_rate_hz: float | None = 160.0
    mains_hz: float = 60.0
    channels: tuple[str, ...] = (
        "Fc5.", "Fc3.", "Fc1.", "Fcz.", "Fc2.", "Fc4.", "Fc6.", "C5..", "C3..", "C1..", "Cz..", "C2..", "C4..", "C6..",
        "Cp5.", "Cp3.", "Cp1.", "Cpz.", "Cp2.", "Cp4.", "Cp6.", "Fp1.", "Fpz.", "Fp2.", "Af7.", "Af3.", "Afz.", "Af4.",
        "Af8.", "F7..", "F5..", "F3..", "F1..", "Fz..", "F2..", "F4..", "F6..", "F8..", "Ft7.", "Ft8.", "T7..", "T8..",
        "T9..", "T10.", "Tp7.", "Tp8.", "P7..", "P5..", "P3..", "P1..", "Pz..", "P2..", "P4..", "P6..", "P8..", "Po7.",
        "Po3.", "Poz.", "Po4.", "Po8.", "O1..", "Oz..", "O2..", "Iz..",
    )  # fmt: skip
    licence: str = "ODC-BY 1.0"
    citation: str = (
        "Schalk et al., BCI2000: a general-purpose brain-computer interface system, IEEE TBME 51(6):1034-1043, 2004"
    )
    url: str = "https://physionet.org/content/eegmmidb/1.0.0/"
    published_name: str = r"S\d{3}R\d{2}\.edf"
    published: Published = Published(subjects=109, recordings=1_526)
    window_s: float | None = 16.0
    """Length of a window in seconds; the paper fills 1,024 tokens: 16 s at 64 channels."""
