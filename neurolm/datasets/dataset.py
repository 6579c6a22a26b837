"""What every published data set declares, and the three functions it offers."""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from neurolm.config import UserError
from neurolm.eeg.recording import Recording, read_recording
from neurolm.eeg.windows import Window


class DataSetError(UserError):
    """A folder that does not hold the data set it should."""


@dataclass(frozen=True)
class SourceFile:
    """One recording's file and what its name says."""

    path: Path
    recording: str
    """Path relative to the data set's root, with forward slashes."""
    subject: str
    label: str | None = None
    """Class of the whole file; None if the file is unlabelled or its windows are labelled one by one."""


@dataclass(frozen=True, kw_only=True)
class EEGDataset(ABC):
    """A published collection of recordings: facts as fields, layout and windows as methods."""

    name: str
    title: str
    layout: str
    """What the folder must look like, shown when nothing is found."""
    mains_hz: float
    """Mains frequency where it was recorded, in Hz."""
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
    splits_share_subjects: bool = False
    """The published split divides trials, not people: a subject may be in several splits."""
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
