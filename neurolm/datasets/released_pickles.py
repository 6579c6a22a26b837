"""Folders of the released code's pickles, one sample a file, become windows; no code in them is run.

Forms that its data makers write: ``{"X", "y"}`` and ``{"X", "ch_names", "y"}``, in TUEV ``{"signal",
"offending_channel", "label"}`` with labels from 1, and for pre-training ``{"X", "ch_names"}`` or ``{"data",
"ch_names"}``. A label may be an array of one element. Signals are [channels times] in µV, filtered and at 200 Hz
already. SEED's HDF5 file is not read.
"""

import pickle
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurolm.datasets.arrays import recording_of
from neurolm.datasets.dataset import Assignment, DataSetError, EEGDataset, Published, SourceFile
from neurolm.datasets.splits import Split, SplitError
from neurolm.eeg.channels import canonical_name
from neurolm.eeg.recording import Annotation, Recording, RecordingError
from neurolm.eeg.windows import Window, cut

RATE_HZ = 200.0
_FILE = re.compile(r"(?P<recording>.+)(?P<separator>[-_])(?P<number>\d+)\.pkl")
_SPLIT_FOLDERS: dict[str, Split] = {"train": "train", "val": "val", "eval": "val", "test": "test"}
_SUBJECTS = {
    "tuev": r"([a-z]{8}|\d{8})_\d{8}|[a-z]+_(\d{3})_a_\d*",
    "hmc": r"(SN\d+)",
    "workload": r"(Subject\d+)_[12]",
}
_TUH_SUBJECT = r"([a-z]{8}|\d{8})_s\d{3}.*"
_ALLOWED = {("numpy", "ndarray"), ("numpy", "dtype")} | {
    (f"{core}.{module}", name)
    for core in ("numpy.core", "numpy._core")
    for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
}
"""What numpy needs to restore an array; everything else in these files is plain containers and numbers."""


class _ArrayUnpickler(pickle.Unpickler):
    """Restores containers, numbers and numpy arrays, and refuses whatever else a pickle names."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no sample needs")
        return super().find_class(module, name)


def read_sample(path: Path) -> dict[str, Any]:
    """One pickle. Raises RecordingError for a file that is none, or that names anything but arrays and containers."""
    try:
        with path.open("rb") as file:
            sample = _ArrayUnpickler(file).load()
    except MemoryError:  # bytes that happen to say how long something is may say anything
        size = path.stat().st_size
        raise RecordingError(f"{path}: refused: its {size} bytes ask for more memory than there is") from None
    except Exception as error:  # a broken pickle fails in as many ways as there are bytes
        raise RecordingError(f"{path}: refused as a sample of the released code: {error}") from None
    if not isinstance(sample, dict):
        raise RecordingError(f"{path}: holds a {type(sample).__name__}; expected a dictionary such as X and y")
    return sample


@dataclass(frozen=True, kw_only=True)
class ReleasedPickles(EEGDataset):
    """The samples of one recording, found by their common name, are read together; each is a window as it is.

    Rule ``released`` takes the splits of the folders; the other rules go by subject. A window's start counts the
    samples one after another: where they lay in their recording is not known.
    """

    made_from: EEGDataset
    """The data set of the samples; a recording of it, which is no pickle, is read as one (`neurolm predict`)."""
    subject_pattern: str
    """Regular expression of a recording's name; its group that matches is the subject."""
    first_code: int = 0
    """Number of the first label."""
    straddling_rules: tuple[str, ...] = ("released",)
    window_s: float | None = None
    """Length of a window of ``made_from``; a sample is a window as it is."""

    def find(self, root: Path) -> list[SourceFile]:
        """All recordings with samples in a folder train, val, eval or test (TUEV: processed_train, ...)."""
        samples: dict[tuple[Path, str], list[Path]] = {}
        for path, match in self._matching(root, root.rglob("*.pkl"), _FILE):
            samples.setdefault((path.parent, match["recording"]), []).append(path)
        folders: dict[str, Path] = {}
        sources = []
        for (folder, recording), paths in samples.items():
            if folders.setdefault(recording, folder) != folder:
                raise DataSetError(f"{recording} has samples in {folders[recording]} and {folder}; keep one of them")
            sources.append(self._source(root, recording, paths))
        return sources

    def read(self, source: SourceFile) -> Recording:
        """The samples of a recording one after another, each marked by an annotation. Raises RecordingError."""
        if source.path.suffix != ".pkl":
            return self.made_from.read(source)
        signals: list[NDArray[Any]] = []
        marks: list[Annotation] = []
        channels: tuple[str, ...] | None = None
        onset_s = 0.0
        for path in self._samples(source):
            sample = read_sample(path)
            signal = _entry(path, sample, ("X", "signal", "data"))
            names = tuple(canonical_name(str(name)) for name in sample.get("ch_names", self.channels))
            if channels not in (None, names) or signal.ndim != 2 or len(signal) != len(names):
                raise RecordingError(f"{path}: signal of shape {signal.shape}, {len(names)} channels; they differ")
            channels = names
            signals.append(signal)
            marks.append(Annotation(onset_s, signal.shape[1] / RATE_HZ, self._label(path, sample)))
            onset_s += signal.shape[1] / RATE_HZ
        recording = recording_of(source.path, np.concatenate(signals, axis=1), RATE_HZ, channels or ())
        return replace(recording, annotations=tuple(marks), is_preprocessed=True)

    def windows(self, source: SourceFile, recording: Recording) -> tuple[list[Window], Counter[str]]:
        """A window a sample."""
        windows = []
        for mark in recording.annotations:
            windows += cut(
                recording,
                duration_s=mark.duration_s,
                stride_s=mark.duration_s,
                start_s=mark.onset_s,
                stop_s=mark.onset_s + mark.duration_s,
                label=mark.description or None,
            )
        return windows, Counter()

    def released_split(self, sources: Sequence[SourceFile]) -> Assignment:
        """The folders. Raises SplitError for samples in other folders."""
        return [(source, _folder_split(source)) for source in sources]

    def _source(self, root: Path, recording: str, paths: Sequence[Path]) -> SourceFile:
        match = re.fullmatch(self.subject_pattern, recording)
        if match is None:
            raise DataSetError(f"{paths[0]}: {recording!r} is no recording of {self.title}; expected {self.layout}")
        numbers = sorted(int(found["number"]) for path in paths if (found := _FILE.fullmatch(path.name)))
        return SourceFile(
            path=paths[0],
            recording=(paths[0].parent / recording).relative_to(root).as_posix(),
            subject=next(group for group in match.groups() if group),
            part=",".join(map(str, numbers)),
        )

    def _samples(self, source: SourceFile) -> list[Path]:
        match = _FILE.fullmatch(source.path.name)
        if match is None or source.part is None:
            raise RecordingError(f"{source.path}: is no sample of {self.title}; expected {self.layout}")
        stem = match["recording"] + match["separator"]
        return [source.path.with_name(f"{stem}{number}.pkl") for number in source.part.split(",")]

    def _label(self, path: Path, sample: dict[str, Any]) -> str:
        if not self.labels:
            return ""
        code = int(_entry(path, sample, ("y", "label")).reshape(-1)[0]) - self.first_code
        if code not in range(len(self.labels)):
            raise RecordingError(
                f"{path}: label {code + self.first_code}; expected {self.first_code} to "
                f"{self.first_code + len(self.labels) - 1} for {', '.join(self.labels)}"
            )
        return self.labels[code]


def released_pickles_of(data_set: EEGDataset) -> ReleasedPickles:
    """The layout of the samples that the released code makes of a data set, named after it."""
    return ReleasedPickles(
        name=f"{data_set.name}_pickles",
        title=f"samples of the released code made of {data_set.title}",
        layout="{train,val|eval,test}/<recording>-<number>.pkl or <recording>_<number>.pkl",
        sampling_rate_hz=RATE_HZ,
        mains_hz=data_set.mains_hz,
        channels=data_set.channels,
        labels=data_set.labels,
        licence=data_set.licence,
        citation=data_set.citation,
        url=data_set.url,
        people=data_set.people,
        paper_counts=data_set.paper_counts,
        published=Published(windows=data_set.published.windows),
        made_from=data_set,
        window_s=getattr(data_set, "window_s", None),
        subject_pattern=_SUBJECTS.get(data_set.name, _TUH_SUBJECT),
        first_code=1 if data_set.name == "tuev" else 0,
    )


def _entry(path: Path, sample: dict[str, Any], names: Sequence[str]) -> NDArray[Any]:
    for name in names:
        if name in sample:
            values = np.asarray(sample[name])
            if values.size and values.dtype.kind in "fiu":
                return values
    raise RecordingError(f"{path}: no numbers under {' or '.join(names)}; found {', '.join(map(str, sample))}")


def _folder_split(source: SourceFile) -> Split:
    folder = source.path.parent.name.removeprefix("processed_")
    if folder not in _SPLIT_FOLDERS:
        raise SplitError(f"{source.path}: in none of the folders {', '.join(_SPLIT_FOLDERS)}; use another split rule")
    return _SPLIT_FOLDERS[folder]
