"""What every published data set declares, and the functions it offers."""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from neurolm.config import UserError
from neurolm.datasets.splits import SPLITS, Split, SplitError
from neurolm.eeg.recording import Recording, read_recording
from neurolm.eeg.windows import Window


class DataSetError(UserError):
    """A folder that does not hold the data set it should."""


@dataclass(frozen=True)
class SourceFile:
    """One recording's file and what its name says."""

    path: Path
    recording: str
    """Path relative to the data set's root, with forward slashes; unique in the data set."""
    subject: str
    label: str | None = None
    """Class of the whole file; None if the file is unlabelled or its windows are labelled one by one."""
    split: Split | None = None
    """Split that the declaration assigns to the file; None: `assignment.assign` divides it by a rule."""
    beside: tuple[Path, ...] = ()
    """Other files that its windows depend on, such as a table of events."""
    part: str | None = None
    """Which part of the file is meant, where a file holds several recordings or is divided between splits."""
    published_split: Literal["train", "test"] | None = None
    """The publisher's own folder, where there is a training and a test folder."""


Assignment = list[tuple[SourceFile, Split]]
"""Sources with their splits. A source may occur in several parts; those that do not occur are not used."""


@dataclass(frozen=True)
class Published:
    """Numbers that the publisher, the paper or the released code states; None where we know of none."""

    subjects: int | None = None
    recordings: int | None = None
    """Files that `EEGDataset.find` finds in a whole copy."""
    windows: int | None = None
    """Windows of a whole copy."""
    windows_by_split: tuple[int, int, int] | None = None
    """Train, val and test windows under the released code's split."""


@dataclass(frozen=True, kw_only=True)
class EEGDataset(ABC):
    """A published collection of recordings: facts as fields, layout, windows and splits as methods."""

    name: str
    title: str
    layout: str
    """What the folder must look like, shown when nothing is found."""
    sampling_rate_hz: float | None = None
    """Rate of the published files in Hz; None if they differ."""
    mains_hz: float | None
    """Mains frequency where it was recorded, in Hz; None: nothing to remove."""
    channels: tuple[str, ...]
    """The file's own names in the order in which the model sees them."""
    labels: tuple[str, ...]
    """Class names in the paper's order; empty: unlabelled."""
    licence: str
    citation: str
    url: str
    paper_counts: tuple[int, int, int] | None = None
    """Train, val and test subjects in the paper."""
    people: str | None = None
    """Name of the group of people, where several data sets name the same people alike (TUEG, TUAB, TUEV and TUSL: tuh):
    a person then has one keyed id in all of them; None: nobody else's."""
    published: Published = Published()
    straddling_rules: tuple[str, ...] = ()
    """Published splits that may put a subject into several splits."""
    published_name: str = ""
    """Pattern of the published file names, which say nothing about a person: only names that match it are shown."""

    def shown_name(self, source: SourceFile, otherwise: str) -> str:
        """What messages and logs call a recording: its file name if it is the published one, else its keyed id."""
        return source.path.name if re.fullmatch(self.published_name, source.path.name) else otherwise

    @abstractmethod
    def find(self, root: Path) -> list[SourceFile]:
        """All recordings below ``root``, sorted. Raises DataSetError."""

    @abstractmethod
    def windows(self, source: SourceFile, recording: Recording) -> tuple[list[Window], Counter[str]]:
        """The windows of a preprocessed recording, and how many could not be made, by reason. Raises UserError."""

    def read(self, source: SourceFile) -> Recording:
        """The recording with this data set's channels in their order. Raises RecordingError."""
        return read_recording(source.path, picks=self.channels)

    def read_alone(self, path: Path) -> Recording:
        """A recording from elsewhere, read as those of this data set are, but for its events. Raises RecordingError."""
        return self.read(SourceFile(path, path.name, "unknown"))

    def paper_split(self, sources: Sequence[SourceFile]) -> Assignment:
        """The split that the paper states. Raises SplitError if it states none."""
        raise SplitError(f"data set {self.name}: the paper states no split; set data.split.rule to auto or subject")

    def released_split(self, sources: Sequence[SourceFile]) -> Assignment:
        """The split that the released code makes. Raises SplitError if it makes none."""
        raise SplitError(
            f"data set {self.name}: the released code has no split; set data.split.rule to auto or subject"
        )

    def _matching(
        self, root: Path, paths: Iterable[Path], pattern: re.Pattern[str]
    ) -> list[tuple[Path, re.Match[str]]]:
        """Files whose names match, sorted; an error that shows the expected layout if there are none."""
        if not root.is_dir():
            raise DataSetError(f"{root}: no such folder; {self.title} is expected there as {self.layout}")
        found = [(path, match) for path in sorted(paths) if (match := pattern.fullmatch(path.name))]
        if not found:
            raise DataSetError(f"{root}: no recording of {self.title} found; expected {self.layout}")
        return found


def by_position(sources: Sequence[SourceFile], num_train: int, num_val: int) -> Assignment:
    """The first sources train, the next validate, the rest is the test."""
    num_test = max(len(sources) - num_train - num_val, 0)
    numbers = zip(SPLITS, (num_train, num_val, num_test), strict=True)
    return list(zip(sources, (split for split, number in numbers for _ in range(number)), strict=False))


def by_subject(sources: Sequence[SourceFile], splits: Mapping[str, Split]) -> Assignment:
    """Every source goes where its subject goes."""
    return [(source, splits[source.subject]) for source in sources]
