"""Target-versus-Non-Target: the P300 game Brain Invaders (bi2015a), here unlabelled, for pre-training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neurolm.datasets.arrays import read_csv, recording_of
from neurolm.datasets.dataset import Published, SourceFile
from neurolm.datasets.pretraining import PretrainingDataset
from neurolm.eeg.arrays import read_mat
from neurolm.eeg.recording import Recording, RecordingError


@dataclass(frozen=True, kw_only=True)
class TargetNonTarget(PretrainingDataset):
    """Three sessions of each of 43 subjects; of a session that is there as .mat and .csv, the .mat is read."""

    name: str = "target_nontarget"
    title: str = "Brain Invaders calibration-less P300-based BCI (bi2015a)"
    layout: str = "subject_<subject>_session_<session>.mat or .csv"
    pattern: str = r"(subject_\d{2})_session_\d{2}\.(?:mat|csv)"
    sampling_rate_hz: float | None = 512.0
    mains_hz: float = 50.0
    channels: tuple[str, ...] = (
        "Fp1", "Fp2", "AFz", "F7", "F3", "F4", "F8", "FC5", "FC1", "FC2", "FC6", "T7", "C3", "Cz", "C4", "T8", "CP5",
        "CP1", "CP2", "CP6", "P7", "P3", "Pz", "P4", "P8", "PO7", "O1", "Oz", "O2", "PO8", "PO9", "PO10",
    )  # fmt: skip
    licence: str = "CC BY 4.0 (Zenodo)"
    citation: str = (
        "Korczowski et al., Brain Invaders calibration-less P300-based BCI with modulation of flash duration dataset "
        "(bi2015a), GIPSA-lab, 2019"
    )
    url: str = "https://doi.org/10.5281/zenodo.3266930"
    published: Published = Published(subjects=43, recordings=129)

    def find(self, root: Path) -> list[SourceFile]:
        """All sessions, each once."""
        return _each_once(super().find(root))

    def read(self, source: SourceFile) -> Recording:
        """Columns 2 to 33, in µV; the first is the time, events follow. Raises RecordingError."""
        columns = range(1, len(self.channels) + 1)
        if source.path.suffix == ".csv":
            signal = read_csv(source.path, list(columns))
        else:
            table = np.asarray(read_mat(source.path, ["DATA"])["DATA"], dtype=np.float64)
            if table.ndim != 2 or table.shape[1] <= columns[-1]:
                raise RecordingError(f"{source.path}: DATA has shape {table.shape}, expected 33 columns or more")
            signal = table[:, columns].T
        return recording_of(source.path, signal, float(self.sampling_rate_hz or 0), self.channels)


def _each_once(sources: Sequence[SourceFile]) -> list[SourceFile]:
    by_session = {source.path.stem: source for source in sorted(sources, key=lambda source: source.path.suffix)}
    return sorted(by_session.values(), key=lambda source: source.path)  # ".mat" sorts after ".csv" and stays
