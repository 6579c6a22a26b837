"""TUEV: six kinds of events, marked channel by channel."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from neurolm.datasets.dataset import Assignment, DataSetError, Published, SourceFile
from neurolm.datasets.tuh import TUHDataset, divide_training_subjects, published_split
from neurolm.eeg.recording import Recording
from neurolm.eeg.windows import Window, cut

_FILE = re.compile(r"(?:(?P<train>[a-z]{8}|\d{8})_\d{8}|[a-z]+_(?P<eval>\d{3})_a_\d*)\.edf")


@dataclass(frozen=True, kw_only=True)
class TUEV(TUHDataset):
    """One window of 5 s for every marked second of a channel, with that second in its middle.

    As in the released code, seconds that are marked in several channels give the same signal several times, perhaps
    with different labels, and the window does not say which channel was meant. Within 2 s of an end the window is moved
    inside the recording; the released code fills it with signal from the other end.
    """

    name: str = "tuev"
    title: str = "TUH EEG Events Corpus (TUEV)"
    layout: str = (
        "edf/train/<subject>/<subject>_<number>.edf and edf/eval/<number>/<event>_<number>_a_<number>.edf, "
        "each with its .rec"
    )
    labels: tuple[str, ...] = ("spsw", "gped", "pled", "eyem", "artf", "bckg")
    citation: str = "Harati et al., Improved EEG event classification using differential energy, IEEE SPMB, 2015"
    published: Published = Published(subjects=370, recordings=518, windows=112_491)
    window_s: float = 5.0
    event_s: float = 1.0
    """How long a marked event is, in seconds."""

    def find(self, root: Path) -> list[SourceFile]:
        """All recordings below ``train`` and ``eval``; the events lie in the ``.rec`` beside each."""
        return [
            replace(
                SourceFile(path, path.relative_to(root).as_posix(), match["train"] or match["eval"]),
                published_split=published_split(path, root, self.title),
            )
            for path, match in self._matching(root, root.rglob("*.edf"), _FILE)
        ]

    def windows(self, source: SourceFile, recording: Recording) -> tuple[list[Window], Counter[str]]:
        """A window an event.

        Dropped and counted: events of another length than 1 s, events beyond the recording's end, and all events of a
        recording shorter than a window. Raises DataSetError if the ``.rec`` is missing or broken.
        """
        windows: list[Window] = []
        dropped: Counter[str] = Counter()
        latest_s = recording.duration_s - self.window_s
        for start_s, stop_s, label in self._events(source.path.with_suffix(".rec")):
            if abs(stop_s - start_s - self.event_s) > 0.01:
                dropped["event not 1 s long"] += 1
            elif stop_s > recording.duration_s + 0.01 or latest_s < 0:
                dropped["event beyond the end of the recording"] += 1
            else:
                first_s = min(max(start_s - (self.window_s - self.event_s) / 2, 0.0), latest_s)
                windows += cut(
                    recording,
                    duration_s=self.window_s,
                    stride_s=self.window_s,
                    start_s=first_s,
                    stop_s=first_s + self.window_s,
                    label=label,
                )
        return windows, dropped

    def paper_split(self, sources: Sequence[SourceFile]) -> Assignment:
        """The publisher's evaluation folder is the test; a fifth of the training subjects validates."""
        return divide_training_subjects(sources, [(source.subject,) for source in sources])

    def released_split(self, sources: Sequence[SourceFile]) -> Assignment:
        """The paper's. The released code's draw follows the order of a Python set, which changes from run to run."""
        return self.paper_split(sources)

    def _events(self, path: Path) -> list[tuple[float, float, str]]:
        """Start and stop in seconds and label of every row: channel, start, stop, code from 1 to 6."""
        if not path.is_file():
            raise DataSetError(f"{path}: the events of this recording are missing")
        events = []
        for number, line in enumerate(path.read_text().split(), start=1):
            try:
                _, start_s, stop_s, code = (float(value) for value in line.split(","))
                if code not in range(1, len(self.labels) + 1):
                    raise ValueError(code)
            except ValueError:
                raise DataSetError(f"{path}: line {number} is no event (channel, start, stop, code 1 to 6)") from None
            events.append((start_s, stop_s, self.labels[int(code) - 1]))
        return events
