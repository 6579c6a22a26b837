"""What the unlabelled data sets of pre-training share: files by a name pattern, windows that fill 1,024 tokens."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from neurolm.datasets.dataset import EEGDataset, SourceFile
from neurolm.eeg.recording import Recording, RecordingError
from neurolm.eeg.windows import Window, cut

MAX_TOKENS = 1024
"""Tokens of a pre-training sequence; a token is one second of one channel (paper, Table 6)."""
MAX_WINDOW_S = 64
"""Seconds for which the tokenizer has a time embedding."""


@dataclass(frozen=True, kw_only=True)
class PretrainingDataset(EEGDataset):
    """Windows without overlap from a recording's start; what is left at its end is not used (released code)."""

    labels: tuple[str, ...] = ()
    pattern: str
    """Regular expression of the recordings' file names; its first group is the subject. Any folder below the root."""
    window_s: float | None = None
    """Length of a window in seconds; None: as many whole seconds as fill 1,024 tokens, at most 64."""
    unused_end_s: float = 0.0
    """How much of a recording's end is left out, in seconds."""

    def find(self, root: Path) -> list[SourceFile]:
        """All files whose names match, in the folder or in folders below it."""
        return [
            SourceFile(path, path.relative_to(root).as_posix(), match[1])
            for path, match in self._matching(root, root.rglob("*.*"), re.compile(self.pattern))
        ]

    def windows(self, source: SourceFile, recording: Recording) -> tuple[list[Window], Counter[str]]:
        """Unlabelled windows. Raises RecordingError if the recording is shorter than one."""
        window_s = self.window_s or window_that_fills(len(recording.channels))
        used_s = recording.duration_s - self.unused_end_s
        windows = cut(recording, duration_s=window_s, stride_s=window_s, stop_s=used_s) if used_s > 0 else []
        if not windows:
            unused = f" without its last {self.unused_end_s:g} s" if self.unused_end_s else ""
            raise RecordingError(
                f"{source.path}: {recording.duration_s:g} s long, shorter{unused} than a window of {window_s:g} s"
            )
        return windows, Counter()


def window_that_fills(num_channels: int) -> float:
    """Seconds of a window of so many channels that fill a sequence: 16 at 64 channels, never more than 64."""
    return float(min(MAX_TOKENS // num_channels, MAX_WINDOW_S))
