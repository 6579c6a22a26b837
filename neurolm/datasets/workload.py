"""Workload: PhysioNet's eegmat, rest against serial subtraction."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neurolm.datasets.dataset import Assignment, EEGDataset, Published, SourceFile, by_position, by_subject
from neurolm.eeg.recording import Recording, RecordingError
from neurolm.eeg.windows import Window, cut

_FILE = re.compile(r"(Subject\d+)_([12])\.edf")
_LABELS = {"1": "rest", "2": "arithmetic"}


@dataclass(frozen=True, kw_only=True)
class Workload(EEGDataset):
    """Both files of a subject give 29 windows of 4 s, every 2 s, from the last 60 s (released code; paper: 2,088).

    The paper's split is by subject; the released code's takes sorted files, which is the same in a whole copy.
    """

    name: str = "workload"
    title: str = "EEG During Mental Arithmetic Tasks (eegmat 1.0.0)"
    layout: str = "SubjectNN_1.edf (rest) and SubjectNN_2.edf (arithmetic)"
    sampling_rate_hz: float | None = 500.0
    mains_hz: float = 50.0
    channels: tuple[str, ...] = (
        "EEG Fp1", "EEG Fp2", "EEG F3", "EEG F4", "EEG F7", "EEG F8", "EEG T3", "EEG T4", "EEG C3", "EEG C4",
        "EEG T5", "EEG T6", "EEG P3", "EEG P4", "EEG O1", "EEG O2", "EEG Fz", "EEG Cz", "EEG Pz",
    )  # fmt: skip
    labels: tuple[str, ...] = ("rest", "arithmetic")
    licence: str = "ODC-BY 1.0"
    citation: str = "Zyma et al., Electroencephalograms during mental arithmetic task performance, Data 4(1):14, 2019"
    url: str = "https://physionet.org/content/eegmat/1.0.0/"
    published_name: str = r"Subject\d{2}_[12]\.edf"
    paper_counts: tuple[int, int, int] | None = (26, 5, 5)
    published: Published = Published(
        subjects=36, recordings=72, windows=2_088, windows_by_split=(26 * 58, 5 * 58, 5 * 58)
    )
    straddling_rules: tuple[str, ...] = ("released",)
    used_s: float = 60.0
    """How much of the file's end is used, in seconds."""
    window_s: float = 4.0
    stride_s: float = 2.0

    def find(self, root: Path) -> list[SourceFile]:
        """All ``SubjectNN_1.edf`` and ``_2.edf`` in the folder."""
        return [
            SourceFile(path, path.relative_to(root).as_posix(), match[1], _LABELS[match[2]])
            for path, match in self._matching(root, root.glob("*.edf"), _FILE)
        ]

    def windows(self, source: SourceFile, recording: Recording) -> tuple[list[Window], Counter[str]]:
        """The windows of the last 60 s. Raises RecordingError if the recording is shorter."""
        start_s = recording.duration_s - self.used_s
        if start_s < 0:
            raise RecordingError(
                f"{source.path}: {recording.duration_s:g} s long, but the last {self.used_s:g} s are needed"
            )
        cut_windows = cut(
            recording, duration_s=self.window_s, stride_s=self.stride_s, start_s=start_s, label=source.label
        )
        return cut_windows, Counter()

    def paper_split(self, sources: Sequence[SourceFile]) -> Assignment:
        """Subjects 1 to 26 train, 27 to 31 validate, the rest is the test, in sorted order."""
        subjects = enumerate(sorted({source.subject for source in sources}))
        return by_subject(
            sources,
            {subject: "train" if place < 26 else "val" if place < 31 else "test" for place, subject in subjects},
        )

    def released_split(self, sources: Sequence[SourceFile]) -> Assignment:
        """Files 1 to 52 train, 53 to 62 validate, the rest is the test; a missing file moves the borders."""
        return by_position(sources, 52, 10)
