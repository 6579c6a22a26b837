"""SEED: three emotions while watching film clips, labelled by clip; and what the SEED family's files share."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from neurolm.datasets.dataset import Assignment, DataSetError, EEGDataset, Published, SourceFile
from neurolm.datasets.splits import Split
from neurolm.eeg.recording import Recording, RecordingError, read_recording
from neurolm.eeg.windows import Window, cut

_FILE = re.compile(r"(\d{1,2})_[1-3]\.cnt")
SEED_CHANNELS: tuple[str, ...] = (
    "FP1", "FPZ", "FP2", "AF3", "AF4", "F7", "F5", "F3", "F1", "FZ", "F2", "F4", "F6", "F8", "FT7", "FC5", "FC3", "FC1",
    "FCZ", "FC2", "FC4", "FC6", "FT8", "T7", "C5", "C3", "C1", "CZ", "C2", "C4", "C6", "T8", "TP7", "CP5", "CP3", "CP1",
    "CPZ", "CP2", "CP4", "CP6", "TP8", "P7", "P5", "P3", "P1", "PZ", "P2", "P4", "P6", "P8", "PO7", "PO5", "PO3", "POZ",
    "PO4", "PO6", "PO8", "CB1", "O1", "OZ", "O2", "CB2",
)  # fmt: skip
"""The 62 electrodes of the SEED family; the files also have M1, M2, VEO, HEO and sometimes ECG."""
SEED_LICENCE = "academic use on request (SJTU BCMI licence agreement)"
SEED_URL = "https://bcmi.sjtu.edu.cn/home/seed/"

TRIAL_STARTS_S = (24, 289, 550, 782, 1049, 1260, 1483, 1747, 1993, 2283, 2550, 2812, 3072, 3332, 3598)
TRIAL_STOPS_S = (264, 526, 757, 1023, 1235, 1458, 1722, 1967, 2259, 2525, 2788, 3046, 3308, 3573, 3806)
"""Seconds of the recording in which the 15 clips were shown, the last one included (released code)."""
TRIAL_LABELS = (
    "positive", "neutral", "negative", "negative", "neutral", "positive", "negative", "neutral", "positive", "positive",
    "neutral", "negative", "neutral", "positive", "negative",
)  # fmt: skip
TRIALS_OF_SPLIT: dict[Split, range] = {"train": range(9), "val": range(9, 12), "test": range(12, 15)}


def read_neuroscan(path: Path, channels: Sequence[str]) -> Recording:
    """A Neuroscan CNT file of 32-bit values, as the whole family is; MNE cannot always tell. Raises RecordingError."""
    return read_recording(path, picks=channels, reader_options={"data_format": "int32"})


@dataclass(frozen=True, kw_only=True)
class SEED(EEGDataset):
    """Windows of 4 s without overlap inside each clip, 855 a session (paper: 38,475 in 45 sessions).

    The paper's split is by clip, the same clips of every session: **not subject-disjoint**, and each session lies in
    all three splits. It is made by reading a file in three parts, cut half-way between two clips.
    """

    name: str = "seed"
    title: str = "SJTU Emotion EEG Dataset (SEED)"
    layout: str = "<subject>_<session>.cnt, such as SEED_RAW_EEG/1_1.cnt"
    sampling_rate_hz: float | None = 1000.0
    mains_hz: float = 50.0
    channels: tuple[str, ...] = SEED_CHANNELS
    labels: tuple[str, ...] = ("positive", "neutral", "negative")
    licence: str = SEED_LICENCE
    citation: str = (
        "Zheng and Lu, Investigating critical frequency bands and channels for EEG-based emotion recognition with deep "
        "neural networks, IEEE TAMD 7(3):162-175, 2015"
    )
    url: str = SEED_URL
    published: Published = Published(
        subjects=15, recordings=45, windows=38_475, windows_by_split=(45 * 507, 45 * 177, 45 * 171)
    )
    straddling_rules: tuple[str, ...] = ("paper", "released")
    window_s: float = 4.0

    def find(self, root: Path) -> list[SourceFile]:
        """All sessions, in the folder or in folders below it."""
        return [
            SourceFile(path, path.relative_to(root).as_posix(), match[1])
            for path, match in self._matching(root, root.rglob("*.cnt"), _FILE)
        ]

    def read(self, source: SourceFile) -> Recording:
        """A session, or the part of it that a split uses. Raises RecordingError."""
        recording = read_neuroscan(source.path, self.channels)
        if source.part is None:
            return recording
        first, last = (
            None if border_s is None else round(border_s * recording.sampling_rate_hz)
            for border_s in _borders_s(TRIALS_OF_SPLIT[_split_named(source.part)])
        )
        signal = recording.signal[:, first:last]
        if not signal.shape[1]:
            raise RecordingError(f"{source.path}: {recording.duration_s:g} s long, ends before its {source.part} clips")
        return replace(recording, signal=signal, annotations=())

    def windows(self, source: SourceFile, recording: Recording) -> tuple[list[Window], Counter[str]]:
        """The windows of the clips. Clips beyond the recording's end are counted, not read as something else."""
        trials = range(15) if source.part is None else TRIALS_OF_SPLIT[_split_named(source.part)]
        origin_s = 0.0 if source.part is None else _borders_s(trials)[0] or 0.0
        windows: list[Window] = []
        dropped: Counter[str] = Counter()
        for trial in trials:
            start_s, stop_s = TRIAL_STARTS_S[trial] - origin_s, TRIAL_STOPS_S[trial] + 1 - origin_s
            found = cut(
                recording,
                duration_s=self.window_s,
                stride_s=self.window_s,
                start_s=start_s,
                stop_s=stop_s,
                label=TRIAL_LABELS[trial],
            )
            if missing := int((stop_s - start_s) // self.window_s) - len(found):
                dropped["clip beyond the end of the recording"] += missing
            windows += [replace(window, start_s=window.start_s + origin_s) for window in found]
        return windows, dropped

    def paper_split(self, sources: Sequence[SourceFile]) -> Assignment:
        """Of every session clips 1 to 9 train, 10 to 12 validate and 13 to 15 are the test; not subject-disjoint."""
        return [
            (replace(source, recording=f"{source.recording}#{split}", part=split), split)
            for split in TRIALS_OF_SPLIT
            for source in sources
        ]

    def released_split(self, sources: Sequence[SourceFile]) -> Assignment:
        """The paper's."""
        return self.paper_split(sources)


def _borders_s(trials: range) -> tuple[float | None, float | None]:
    """Where the part with these clips begins and ends: half-way to the clip before and after; None is the file's."""
    first, last = trials[0], trials[-1]
    begin = (TRIAL_STOPS_S[first - 1] + TRIAL_STARTS_S[first]) / 2 if first else None
    end = (TRIAL_STOPS_S[last] + TRIAL_STARTS_S[last + 1]) / 2 if last + 1 < len(TRIAL_STARTS_S) else None
    return begin, end


def _split_named(part: str) -> Split:
    for split in TRIALS_OF_SPLIT:
        if split == part:
            return split
    raise DataSetError(f"a part of a SEED session is one of {', '.join(TRIALS_OF_SPLIT)}, not {part!r}")
