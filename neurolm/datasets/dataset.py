"""What every published data set declares, and the three functions it offers."""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from neurolm.config import UserError
from neurolm.datasets.splits import Split
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
    split: Split | None = None
    """Split that the data set itself assigns; None: the subjects are divided by `splits.split_subjects`."""
    beside: tuple[Path, ...] = ()
    """Other files that its windows depend on, such as a table of events."""


@dataclass(frozen=True, kw_only=True)
class EEGDataset(ABC):
    """A published collection of recordings: facts as fields, layout and windows as methods."""

    name: str
    title: str
    layout: str
    """What the folder must look like, shown when nothing is found."""
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
