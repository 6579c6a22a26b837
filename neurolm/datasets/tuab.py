"""TUAB: normal and abnormal EEG, one label a recording."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from neurolm.datasets.dataset import Assignment, DataSetError, Published, SourceFile
from neurolm.datasets.tuh import TUH_FILE, TUHDataset, divide_training_subjects, published_split
from neurolm.eeg.recording import Recording
from neurolm.eeg.windows import Window, cut


@dataclass(frozen=True, kw_only=True)
class TUAB(TUHDataset):
    """Windows of 10 s without overlap; what is left at a recording's end is not used (released code).

    A recording without all 23 channels is refused; other channels are left out. The released code also leaves out
    recordings that have unexpected other channels.
    """

    name: str = "tuab"
    title: str = "TUH Abnormal EEG Corpus (TUAB)"
    layout: str = "edf/{train,eval}/{normal,abnormal}/.../<subject>_s<session>_t<token>.edf (releases 1 to 3)"
    labels: tuple[str, ...] = ("normal", "abnormal")
    citation: str = "López de Diego, Automated interpretation of abnormal adult electroencephalograms, Temple, 2017"
    published: Published = Published(recordings=2_993, windows=409_455)
    straddling_rules: tuple[str, ...] = ("released",)
    window_s: float = 10.0

    def find(self, root: Path) -> list[SourceFile]:
        """All recordings below ``train`` and ``eval``, labelled by their folder."""
        sources = []
        for path, match in self._matching(root, root.rglob("*.edf"), TUH_FILE):
            folders = path.relative_to(root).parts[:-1]
            labels = [label for label in self.labels if label in folders]
            if len(labels) != 1:
                raise DataSetError(f"{path}: neither below a folder normal nor abnormal; expected {self.layout}")
            source = SourceFile(path, path.relative_to(root).as_posix(), match["subject"], labels[0])
            sources.append(replace(source, published_split=published_split(path, root, self.title)))
        return sources

    def windows(self, source: SourceFile, recording: Recording) -> tuple[list[Window], Counter[str]]:
        """The recording from its start in windows of its label."""
        return cut(recording, duration_s=self.window_s, stride_s=self.window_s, label=source.label), Counter()

    def paper_split(self, sources: Sequence[SourceFile]) -> Assignment:
        """The publisher's evaluation folder is the test; a fifth of the training subjects validates."""
        return divide_training_subjects(sources, [(source.subject,) for source in sources])

    def released_split(self, sources: Sequence[SourceFile]) -> Assignment:
        """As the paper's, but drawn apart for normal and abnormal: who has both may train and validate."""
        return divide_training_subjects(sources, [(str(source.label), source.subject) for source in sources])
