"""HMC: Haaglanden Medisch Centrum's sleep recordings, five stages in epochs of 30 s."""

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neurolm.datasets.dataset import Assignment, DataSetError, EEGDataset, Published, SourceFile, by_position
from neurolm.eeg.recording import Recording
from neurolm.eeg.windows import Window, cut

_FILE = re.compile(r"(SN\d+)\.edf")
_STAGE = re.compile(r"Sleep stage (W|N1|N2|N3|R)")


@dataclass(frozen=True, kw_only=True)
class HMC(EEGDataset):
    """Every scored epoch of 30 s is a window; the sidecar says which stage it is.

    The released code's splits are positions in the sorted files; the paper speaks of subject numbers. Three numbers are
    missing in release 1.1, so the borders differ. `SplitConfig` auto is the released code's.
    """

    name: str = "hmc"
    title: str = "Haaglanden Medisch Centrum sleep staging database (HMC 1.1)"
    layout: str = "recordings/SNxxx.edf with recordings/SNxxx_sleepscoring.txt"
    sampling_rate_hz: float | None = 256.0
    mains_hz: float = 50.0
    channels: tuple[str, ...] = ("EEG F4-M1", "EEG C4-M1", "EEG O2-M1", "EEG C3-M2")
    labels: tuple[str, ...] = ("W", "N1", "N2", "N3", "R")
    licence: str = "CC BY 4.0"
    citation: str = (
        "Alvarez-Estevez and Rijsman, Inter-database validation of a deep learning approach for automatic sleep "
        "scoring, PLoS ONE 16(8):e0256111, 2021"
    )
    url: str = "https://physionet.org/content/hmc-sleep-staging/1.1/"
    published_name: str = r"SN\d{3}\.edf"
    paper_counts: tuple[int, int, int] | None = (100, 25, 26)
    published: Published = Published(
        subjects=151, recordings=151, windows=137_243, windows_by_split=(91_248, 22_124, 23_871)
    )
    window_s: float = 30.0

    def find(self, root: Path) -> list[SourceFile]:
        """All ``recordings/SNxxx.edf``."""
        return [
            SourceFile(path, path.relative_to(root).as_posix(), match[1])
            for path, match in self._matching(root, root.glob("recordings/*.edf"), _FILE)
        ]

    def windows(self, source: SourceFile, recording: Recording) -> tuple[list[Window], Counter[str]]:
        """One window per scored epoch that lies within the recording.

        Dropped and counted: epochs scored as anything but the five stages, and epochs beyond the recording's end.
        Other rows (lights off, body positions) are no epochs. Raises DataSetError if the sidecar is missing or broken.
        """
        windows: list[Window] = []
        dropped: Counter[str] = Counter()
        for onset_s, annotation in self._epochs(source.path.with_name(f"{source.path.stem}_sleepscoring.txt")):
            stage = _STAGE.fullmatch(annotation)
            if stage is None:
                dropped["no scored sleep stage"] += 1
                continue
            found = cut(
                recording,
                duration_s=self.window_s,
                stride_s=self.window_s,
                start_s=onset_s,
                stop_s=onset_s + self.window_s,
                label=stage[1],
            )
            if not found:
                dropped["epoch beyond the end of the recording"] += 1
            windows += found
        return windows, dropped

    def paper_split(self, sources: Sequence[SourceFile]) -> Assignment:
        """Subject numbers 1 to 100 train, 101 to 126 validate, 127 to 154 are the test."""
        return [
            (source, "train" if number <= 100 else "val" if number <= 126 else "test")
            for source in sources
            for number in [int(source.subject.removeprefix("SN"))]
        ]

    def released_split(self, sources: Sequence[SourceFile]) -> Assignment:
        """The first 100 of the sorted files train, the next 25 validate, the rest is the test."""
        return by_position(sources, 100, 25)

    def _epochs(self, path: Path) -> list[tuple[float, str]]:
        """Onset in seconds and annotation of every row that lasts as long as a window."""
        if not path.is_file():
            raise DataSetError(f"{path}: the sleep scoring of this recording is missing")
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            rows = csv.DictReader(file, skipinitialspace=True)
            columns = {name.strip(): name for name in rows.fieldnames or ()}
            missing = {"Recording onset", "Duration", "Annotation"} - set(columns)
            if missing:
                raise DataSetError(
                    f"{path}: no column {', '.join(sorted(missing))}; found {', '.join(map(repr, columns))}"
                )
            try:
                return [
                    (float(row[columns["Recording onset"]]), row[columns["Annotation"]].strip())
                    for row in rows
                    if float(row[columns["Duration"]]) == self.window_s
                ]
            except (TypeError, ValueError, AttributeError):
                raise DataSetError(f"{path}: line {rows.line_num} is no row of a sleep scoring") from None
