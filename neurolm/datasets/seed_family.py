"""SEED-IV, SEED-V, SEED-GER and SEED-FRA, here unlabelled, for pre-training: one amplifier and cap, other people."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.io

from neurolm.datasets.arrays import recording_of
from neurolm.datasets.dataset import DataSetError, Published, SourceFile
from neurolm.datasets.pretraining import PretrainingDataset
from neurolm.datasets.seed import SEED_CHANNELS, SEED_LICENCE, SEED_URL, read_neuroscan
from neurolm.eeg.arrays import read_mat
from neurolm.eeg.recording import Recording, RecordingError

TRIALS = 24
"""Clips of a SEED-IV session, each an array of its own."""


@dataclass(frozen=True, kw_only=True)
class SEEDFamily(PretrainingDataset):
    """Whole sessions of a set of the family, from Neuroscan CNT files."""

    sampling_rate_hz: float | None = 1000.0
    mains_hz: float = 50.0
    channels: tuple[str, ...] = SEED_CHANNELS
    licence: str = SEED_LICENCE
    url: str = SEED_URL

    def read(self, source: SourceFile) -> Recording:
        """The 62 electrodes. Raises RecordingError."""
        return read_neuroscan(source.path, self.channels)


@dataclass(frozen=True, kw_only=True)
class SEEDIV(SEEDFamily):
    """The published arrays hold the clips of a session at 200 Hz, one by one; each is a recording of its own here.

    They are published without a unit; values are µV.
    """

    name: str = "seed_iv"
    title: str = "SEED-IV"
    layout: str = "eeg_raw_data/<session>/<subject>_<date>.mat, 24 arrays ..._eeg1 to ..._eeg24 a file"
    pattern: str = r"(\d{1,2})_\d{8}\.mat"
    sampling_rate_hz: float | None = 200.0
    citation: str = (
        "Zheng et al., EmotionMeter: a multimodal framework for recognizing human emotions, IEEE Trans. Cybern. "
        "49(3):1110-1122, 2019"
    )
    published: Published = Published(subjects=15, recordings=45 * TRIALS)

    def find(self, root: Path) -> list[SourceFile]:
        """All clips of all sessions; features and eye movements of the set lie elsewhere under the same names."""
        files = [
            source
            for source in super().find(root)
            if source.path.parent.name in ("1", "2", "3") and not re.search("feature|eye", source.recording)
        ]
        if not files:
            raise DataSetError(f"{root}: no recording of {self.title} found; expected {self.layout}")
        return [
            replace(source, recording=f"{source.recording}#{trial:02d}", part=str(trial))
            for source in files
            for trial in range(1, TRIALS + 1)
        ]

    def read(self, source: SourceFile) -> Recording:
        """One clip. Raises RecordingError."""
        wanted = f"_eeg{source.part}"
        try:
            names = [name for name, *_ in scipy.io.whosmat(source.path) if name.endswith(wanted)]
        except (ValueError, TypeError, OSError, NotImplementedError) as error:
            raise RecordingError(f"{source.path}: not a readable MATLAB file ({error})") from None
        if len(names) != 1:
            raise RecordingError(f"{source.path}: expected one array ...{wanted}, found {len(names)}")
        signal = np.asarray(read_mat(source.path, names)[names[0]])
        return recording_of(source.path, signal, float(self.sampling_rate_hz or 0), self.channels)


SEED_V = SEEDFamily(
    name="seed_v",
    title="SEED-V",
    layout="EEG_raw/<subject>_<session>_<date>.cnt",
    pattern=r"(\d{1,2})_[1-3]_\d{8}\.cnt",
    citation=(
        "Liu et al., Comparing recognition performance and robustness of multimodal deep learning models for "
        "multimodal emotion recognition, IEEE TCDS 14(2):715-729, 2022"
    ),
    published=Published(subjects=16, recordings=48),
)
_LIU_2022 = (
    "Liu et al., Identifying similarities and differences in emotion recognition with EEG and eye movements among "
    "Chinese, German, and French people, J. Neural Eng. 19(2):026012, 2022"
)
SEED_GER = SEEDFamily(
    name="seed_ger",
    title="SEED-GER",
    layout="German/01-EEG-raw/<subject>_<session>.cnt",
    pattern=r"(\d{1,2})_[1-3]\.cnt",
    citation=_LIU_2022,
    published=Published(subjects=8),
)
SEED_FRA = SEEDFamily(
    name="seed_fra",
    title="SEED-FRA",
    layout="French/01-EEG-raw/<subject>_<session>.cnt",
    pattern=r"(\d{1,2})_[1-3]\.cnt",
    citation=_LIU_2022,
    published=Published(subjects=8),
)
