"""EEGMMIDB: PhysioNet's motor movement and imagery recordings, here unlabelled, for pre-training."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from neurolm.datasets.dataset import EEGDataset, SourceFile
from neurolm.eeg.recording import Recording, RecordingError
from neurolm.eeg.windows import Window, cut

_FILE = re.compile(r"(S\d{3})R\d{2}\.edf")


@dataclass(frozen=True, kw_only=True)
class MotorImagery(EEGDataset):
    """Windows without overlap from a recording's start; what is left at its end is not used (released code)."""

    name: str = "motor_imagery"
    title: str = "EEG Motor Movement/Imagery Dataset (EEGMMIDB 1.0.0)"
    layout: str = "Sxxx/SxxxRyy.edf"
    mains_hz: float = 60.0
    channels: tuple[str, ...] = (
        "Fc5.", "Fc3.", "Fc1.", "Fcz.", "Fc2.", "Fc4.", "Fc6.", "C5..", "C3..", "C1..", "Cz..", "C2..", "C4..", "C6..",
        "Cp5.", "Cp3.", "Cp1.", "Cpz.", "Cp2.", "Cp4.", "Cp6.", "Fp1.", "Fpz.", "Fp2.", "Af7.", "Af3.", "Afz.", "Af4.",
        "Af8.", "F7..", "F5..", "F3..", "F1..", "Fz..", "F2..", "F4..", "F6..", "F8..", "Ft7.", "Ft8.", "T7..", "T8..",
        "T9..", "T10.", "Tp7.", "Tp8.", "P7..", "P5..", "P3..", "P1..", "Pz..", "P2..", "P4..", "P6..", "P8..", "Po7.",
        "Po3.", "Poz.", "Po4.", "Po8.", "O1..", "Oz..", "O2..", "Iz..",
    )  # fmt: skip
    labels: tuple[str, ...] = ()
    licence: str = "ODC-BY 1.0"
    citation: str = (
        "Schalk et al., BCI2000: a general-purpose brain-computer interface system, IEEE TBME 51(6):1034-1043, 2004"
    )
    url: str = "https://physionet.org/content/eegmmidb/1.0.0/"
    published_name: str = r"S\d{3}R\d{2}\.edf"
    window_s: float = 16.0
    """Length of a window in seconds; the paper fills 1,024 tokens: 16 s at 64 channels."""

    def find(self, root: Path) -> list[SourceFile]:
        """All ``SxxxRyy.edf`` in the folder or in folders below it."""
        return [
            SourceFile(path, path.relative_to(root).as_posix(), match[1])
            for path, match in self._matching(root, root.rglob("*.edf"), _FILE)
        ]

    def windows(self, source: SourceFile, recording: Recording) -> tuple[list[Window], Counter[str]]:
        """Unlabelled windows. Raises RecordingError if the recording is shorter than one."""
        windows = cut(recording, duration_s=self.window_s, stride_s=self.window_s)
        if not windows:
            raise RecordingError(
                f"{source.path}: {recording.duration_s:g} s long, shorter than a window of {self.window_s:g} s"
            )
        return windows, Counter()
