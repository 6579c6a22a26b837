"""TUSL: background, seizure and slowing, in marked spans of 10 s."""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neurolm.datasets.dataset import Assignment, DataSetError, Published, SourceFile, by_position
from neurolm.datasets.tuh import TUH_FILE, TUHDataset
from neurolm.eeg.recording import Recording
from neurolm.eeg.windows import Window, cut


@dataclass(frozen=True, kw_only=True)
class TUSL(TUHDataset):
    """Every marked span of 10 s is a window. The spans are read from ``.tse_agg``, else from ``.csv`` (newer releases).

    Published are 300 spans; 245 are those of recordings with the 23 channels against a common reference (paper).
    """

    name: str = "tusl"
    title: str = "TUH EEG Slowing Corpus (TUSL)"
    layout: str = "edf/.../<subject>_s<session>_t<token>.edf with .tse_agg or .csv (releases 1 and 2)"
    labels: tuple[str, ...] = ("bckg", "seiz", "slow")
    citation: str = (
        "von Weltin et al., Electroencephalographic slowing: a primary source of error in automatic seizure detection, "
        "IEEE SPMB, 2017"
    )
    published: Published = Published(windows=245)
    straddling_rules: tuple[str, ...] = ("released",)
    window_s: float = 10.0

    def find(self, root: Path) -> list[SourceFile]:
        """All recordings below the folder."""
        return [
            SourceFile(path, path.relative_to(root).as_posix(), match["subject"])
            for path, match in self._matching(root, root.rglob("*.edf"), TUH_FILE)
        ]

    def windows(self, source: SourceFile, recording: Recording) -> tuple[list[Window], Counter[str]]:
        """A window a span.

        Dropped and counted: spans of other lengths, of other labels, and beyond the recording's end. Raises
        DataSetError if the marks are missing or broken.
        """
        windows: list[Window] = []
        dropped: Counter[str] = Counter()
        for start_s, stop_s, label in spans_of(source.path):
            if label not in self.labels:
                dropped["span of another label"] += 1
                continue
            if abs(stop_s - start_s - self.window_s) > 0.01:
                dropped["span not 10 s long"] += 1
                continue
            found = cut(
                recording,
                duration_s=self.window_s,
                stride_s=self.window_s,
                start_s=start_s,
                stop_s=start_s + self.window_s,
                label=label,
            )
            if not found:
                dropped["span beyond the end of the recording"] += 1
            windows += found
        return windows, dropped

    def released_split(self, sources: Sequence[SourceFile]) -> Assignment:
        """The first 60 % of the files train, the next 20 % are the test, the rest validates; not subject-disjoint.

        The released code takes files as the directory lists them; sorted files stand in for that order.
        """
        borders = int(len(sources) * 0.6), int(len(sources) * 0.8)
        positions = by_position(sources, borders[0], borders[1] - borders[0])
        after_train = {"val": "test", "test": "val", "train": "train"}
        return [(source, after_train[split]) for source, split in positions]  # type: ignore[misc]


def spans_of(path: Path) -> list[tuple[float, float, str]]:
    """Start and stop in seconds and label of all spans of a TUH recording, channels merged. Raises DataSetError.

    ``.tse_agg`` has two lines of header, then start, stop, label and probability. ``.csv`` has comments (#), a header
    and a row for every channel of a span.
    """
    marks = next((file for file in (path.with_suffix(".tse_agg"), path.with_suffix(".csv")) if file.is_file()), None)
    if marks is None:
        raise DataSetError(f"{path}: the spans of this recording are missing (.tse_agg or .csv)")
    try:
        if marks.suffix == ".csv":
            lines = [line for line in marks.read_text().splitlines() if line and not line.startswith("#")]
            rows = [(row["start_time"], row["stop_time"], row["label"]) for row in csv.DictReader(lines)]
        else:
            rows = [(start, stop, label) for start, stop, label, *_ in _fields(marks.read_text())]
        return sorted({(float(start), float(stop), label) for start, stop, label in rows})
    except (KeyError, ValueError, TypeError) as error:
        raise DataSetError(f"{marks}: not a list of spans ({error})") from None


def _fields(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()[2:] if line.strip()]
