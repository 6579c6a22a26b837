"""What the corpora of Temple University Hospital share: names, folders of all releases, and montages.

Releases lie differently (all of these are found):

- until 2022: ``edf/01_tcp_ar/000/00000021/s004_2013_08_15/00000021_s004_t000.edf``, in TUAB with ``train/normal/`` and
  the like after ``edf/``
- v2 of TUEG and TUSL, v3 of TUAB: ``edf/000/aaaaaaaa/s001_2015_12_30/01_tcp_ar/aaaaaaaa_s001_t000.edf`` and
  ``edf/train/normal/01_tcp_ar/aaaaaaaq_s004_t000.edf``

The file's name holds the subject in every release. The folder's name says the montage, but the channels' own names
decide it here: EEG is read from channels against a common reference (``-REF``). A file with channels against linked
ears (``-LE``), as in ``02_tcp_le``, is refused as a whole and so counted among the quarantined ones with that reason;
the released code leaves it out in silence.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from neurolm.datasets.dataset import Assignment, DataSetError, EEGDataset, SourceFile
from neurolm.datasets.splits import in_hash_order
from neurolm.eeg.recording import Recording, RecordingError, read_recording

TUH_FILE = re.compile(r"(?P<subject>[a-z]{8}|\d{8})_s\d{3}(?:_t\d{3})?\.edf")
TUH_CHANNELS = tuple(
    f"EEG {electrode}-REF"
    for electrode in (
        "FP1", "FP2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2", "F7", "F8", "T3", "T4", "T5", "T6", "A1", "A2",
        "FZ", "CZ", "PZ", "T1", "T2",
    )
)  # fmt: skip
"""The 23 channels of TUAB, TUEV and TUSL in the released code's order."""
TUH_LICENCE = "free of charge on request (TUH EEG data use agreement)"
TUH_URL = "https://isip.piconepress.com/projects/nedc/html/tuh_eeg/"
TUH_PEOPLE = "tuh"
"""TUEG holds the recordings of the other corpora, and all name a person alike."""
LINKED_EARS = "LE"


@dataclass(frozen=True, kw_only=True)
class TUHDataset(EEGDataset):
    """A corpus from Philadelphia: mains at 60 Hz (the released code filters TUAB and TUEV at 50 Hz all the same)."""

    sampling_rate_hz: float | None = None
    mains_hz: float = 60.0
    channels: tuple[str, ...] = TUH_CHANNELS
    licence: str = TUH_LICENCE
    url: str = TUH_URL
    people: str | None = TUH_PEOPLE

    def read(self, source: SourceFile) -> Recording:
        """The declared channels against a common reference. Raises RecordingError for linked ears."""
        refuse_linked_ears(source.path)
        return read_recording(source.path, picks=self.channels)


def refuse_linked_ears(path: Path) -> None:
    """Raise RecordingError for a recording that has channels against linked ears."""
    references = references_of(path)
    if references[LINKED_EARS]:
        raise RecordingError(
            f"{path}: {references[LINKED_EARS]} channels against linked ears (-LE) and {references['REF']} against a "
            "common reference (-REF); only recordings of the latter kind are used"
        )


def references_of(path: Path) -> Counter[str]:
    """How many channels of an EDF file have which suffix (``EEG FP1-REF``: REF); empty where there is no header."""
    with path.open("rb") as file:
        header = file.read(256)
        num_signals = header[252:256].strip()
        labels = file.read(16 * int(num_signals)) if num_signals.isdigit() else b""
    names = (labels[start : start + 16].decode("latin-1").strip().upper() for start in range(0, len(labels), 16))
    return Counter(name.rpartition("-")[2] for name in names if "-" in name)


def published_split(source_path: Path, root: Path, title: str) -> Literal["train", "test"]:
    """``train`` or, for the publisher's ``eval``, ``test``: the folder's name. Raises DataSetError without one."""
    folders = source_path.relative_to(root).parts[:-1]
    if ("train" in folders) == ("eval" in folders):
        raise DataSetError(f"{source_path}: neither below a folder train nor eval; {title} has both: give their parent")
    return "train" if "train" in folders else "test"


def divide_training_subjects(sources: Sequence[SourceFile], groups: Sequence[tuple[str, ...]]) -> Assignment:
    """The publisher's test subjects are the test; of the others one in five validates, drawn in hash order.

    The paper and the released code draw them at random without a seed that gives the same draw again; this draw stands
    in for theirs.

    Args:
        sources: recordings that know their published folder.
        groups: for every source, what is drawn: ``(subject,)``, or ``(label, subject)`` to draw each label apart.
    """
    keys = {"/".join(group) for source, group in zip(sources, groups, strict=True) if source.published_split == "train"}
    validating: set[str] = set()
    for prefix in {key.rpartition("/")[0] for key in keys}:
        drawn = in_hash_order(key for key in keys if key.rpartition("/")[0] == prefix)
        validating.update(drawn[: round(len(drawn) * 0.2)])
    return [
        (source, "test" if source.published_split == "test" else "val" if "/".join(group) in validating else "train")
        for source, group in zip(sources, groups, strict=True)
    ]
