"""TUEG: all of Temple University Hospital's EEG, unlabelled, for pre-training."""

from dataclasses import dataclass

from neurolm.datasets.dataset import SourceFile
from neurolm.datasets.pretraining import PretrainingDataset
from neurolm.datasets.tuh import TUH_CHANNELS, TUH_FILE, TUH_LICENCE, TUH_PEOPLE, TUH_URL, refuse_linked_ears
from neurolm.eeg.recording import Recording, read_recording


@dataclass(frozen=True, kw_only=True)
class TUEG(PretrainingDataset):
    """Every electrode of the vocabulary that a recording has; as many seconds a window as fill 1,024 tokens.

    The last 10 s of a recording are not used (released code). Recordings with few channels get windows of 64 s, the
    most that the tokenizer can tell apart; in the released code they fail. TUAB, TUEV and TUSL are parts of TUEG.
    """

    name: str = "tueg"
    title: str = "TUH EEG Corpus (TUEG)"
    layout: str = "edf/.../<subject>_s<session>_t<token>.edf (releases 1 and 2)"
    pattern: str = TUH_FILE.pattern
    sampling_rate_hz: float | None = None
    mains_hz: float = 60.0
    channels: tuple[str, ...] = TUH_CHANNELS
    """Typical ones; recordings differ."""
    licence: str = TUH_LICENCE
    citation: str = "Obeid and Picone, The Temple University Hospital EEG Data Corpus, Front. Neurosci. 10:196, 2016"
    url: str = TUH_URL
    people: str | None = TUH_PEOPLE
    unused_end_s: float = 10.0

    def read(self, source: SourceFile) -> Recording:
        """All electrodes against a common reference, in the file's order. Raises RecordingError for linked ears."""
        refuse_linked_ears(source.path)
        return read_recording(source.path)
