"""What data sets that are declared in YAML have in common: recordings, facts, labels, events and windows."""

import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from neurolm.datasets.dataset import DataSetError, EEGDataset, SourceFile
from neurolm.datasets.declaration import EVENT, Declaration, EventsConfig
from neurolm.datasets.splits import Split
from neurolm.datasets.tables import TableError, column, read_table
from neurolm.eeg.channels import canonical_name
from neurolm.eeg.recording import Annotation, Recording, RecordingError, read_recording
from neurolm.eeg.windows import Window, cut

logger = logging.getLogger(__name__)

Facts = Mapping[str, str]
"""What is known of one recording by name: groups of its path, columns of its row in a table."""


@dataclass(frozen=True, kw_only=True)
class DeclaredDataSet(EEGDataset):
    """A data set whose declaration says everything; its subclasses know where recordings and facts are."""

    declaration: Declaration
    window_s: float | None
    """Length of a window in seconds; None: as long as the file."""
    stride_s: float | None

    @classmethod
    def of(cls, declaration: Declaration) -> "DeclaredDataSet":
        """The data set that a declaration describes."""
        windows = declaration.windows
        return cls(
            name=declaration.name,
            title=declaration.title or declaration.name,
            layout=", ".join(declaration.files) or "a BIDS folder",
            mains_hz=declaration.mains_hz,
            channels=tuple(declaration.channels or ()),
            labels=declaration.classes,
            licence=declaration.licence,
            citation=declaration.citation,
            url=declaration.url,
            paper_counts=declaration.split_counts,
            declaration=declaration,
            window_s=windows.length_s,
            stride_s=windows.stride_s or windows.length_s,
        )

    @abstractmethod
    def recordings(self, root: Path) -> Iterable[tuple[Path, Facts, tuple[Path, ...]]]:
        """Every recording in order, what is known of it, and the files beside it that its windows depend on."""

    @abstractmethod
    def events_file(self, source: SourceFile) -> Path | None:
        """The table of a recording's events; None: its own annotations count."""

    def find(self, root: Path) -> list[SourceFile]:
        """All recordings below ``root``. Raises DataSetError: none, or a fact that is missing or not declared."""
        if not root.is_dir():
            raise DataSetError(f"{root}: no such folder; {self.title} is expected there as {self.layout}")
        sources: list[SourceFile] = []
        left_out: Counter[str] = Counter()
        for path, facts, beside in self.recordings(root):
            name = path.relative_to(root).as_posix()
            label = self._label(name, facts)
            if self.declaration.label not in (None, EVENT) and label is None:
                left_out[facts[str(self.declaration.label)]] += 1
                continue
            subject = self._fact(name, facts, "subject", self.declaration.subject)
            sources.append(SourceFile(path, name, subject, label, self._split(name, facts), beside))
        for value, number in left_out.items():
            logger.info("%s: %d recordings left out: labels: %s: null", self.name, number, value)
        if not sources:
            raise DataSetError(
                f"{root}: no recording of {self.title} found; {self.declaration.file} expects {self.layout}"
            )
        self._refuse_divided_subjects(sources)
        return sources

    def read(self, source: SourceFile) -> Recording:
        """The recording as declared: channels, scale, events and reference. Raises RecordingError."""
        return self._referenced(source, self._with_events(source, self._recording(source)))

    def read_alone(self, path: Path) -> Recording:
        """As declared, but for tables of events, sidecars and whatever else lies beside recordings of this set."""
        source = SourceFile(path, path.name, "unknown")
        return self._referenced(source, self._signal(source))

    def windows(self, source: SourceFile, recording: Recording) -> tuple[list[Window], Counter[str]]:
        """The declared windows, and how many could not be made. Raises RecordingError: too short for any."""
        if self.declaration.windows.around == "events":
            return self._event_windows(source, recording)
        return self._file_windows(source, recording)

    def _recording(self, source: SourceFile) -> Recording:
        return self._signal(source)

    def _signal(self, source: SourceFile, rename: list[str] | None = None) -> Recording:
        declared, events = self.declaration, self.declaration.events
        picks: dict[str, str] | tuple[str, ...] | None = declared.channels
        if picks is not None and not isinstance(declared.reference, str):
            references = {name: canonical_name(name) for name in declared.reference}
            picks = picks | references if isinstance(picks, dict) else (*picks, *references)
        return read_recording(
            source.path,
            picks,
            drop=declared.drop,
            rename=rename,
            scale=declared.scale,
            triggers=events.triggers if events else None,
            arrays=declared.arrays,
        )

    def _with_events(self, source: SourceFile, recording: Recording) -> Recording:
        if self.declaration.windows.around != "events" or (path := self.events_file(source)) is None:
            return recording
        settings = self.declaration.events or EventsConfig(duration="duration")
        unit_s = {"s": 1.0, "ms": 1e-3, "points": 1 / recording.sampling_rate_hz}[settings.unit]
        try:
            rows = read_table(path)
            onsets, texts = column(rows, settings.onset), column(rows, settings.text)
            durations = [""] * len(rows) if settings.duration is None else column(rows, settings.duration)
            events = [
                Annotation(float(onset) * unit_s, 0.0 if duration in ("", "n/a") else float(duration) * unit_s, text)
                for onset, duration, text in zip(onsets, durations, texts, strict=True)
            ]
        except TableError as error:
            raise RecordingError(f"{source.path}: its table of events: {error}") from None
        except ValueError:
            raise RecordingError(f"{source.path}: its table of events: an onset or duration is no number") from None
        return replace(recording, annotations=tuple(events))

    def _referenced(self, source: SourceFile, recording: Recording) -> Recording:
        reference = self.declaration.reference
        if reference == "as recorded":
            return recording
        if pairs := [name for name in recording.channels if "-" in name]:
            raise RecordingError(
                f"{source.path}: reference: {', '.join(pairs)} are bipolar and have no reference to change"
            )
        if reference == "average":
            return replace(recording, signal=recording.signal - recording.signal.mean(axis=0))
        names = [canonical_name(name) for name in reference]
        if missing := sorted(set(names) - set(recording.channels)):
            raise RecordingError(f"{source.path}: reference: {', '.join(missing)} is not in the recording")
        rows = [recording.channels.index(name) for name in names]
        kept = [row for row in range(len(recording.channels)) if row not in rows]
        return replace(
            recording,
            signal=recording.signal[kept] - recording.signal[rows].mean(axis=0),
            channels=tuple(recording.channels[row] for row in kept),
        )

    def _file_windows(self, source: SourceFile, recording: Recording) -> tuple[list[Window], Counter[str]]:
        settings = self.declaration.windows
        start_s, stop_s = settings.start_s, settings.stop_s
        if settings.last_s is not None:
            start_s = recording.duration_s - settings.last_s
            if start_s < 0:
                raise RecordingError(
                    f"{source.path}: {recording.duration_s:g} s long, but the last {settings.last_s:g} s are needed"
                )
        if stop_s is not None and recording.duration_s < stop_s:
            raise RecordingError(f"{source.path}: {recording.duration_s:g} s long, but windows go until {stop_s:g} s")
        used_s = (recording.duration_s if stop_s is None else stop_s) - start_s
        length_s = self.window_s or float(int(used_s))
        windows = []
        if length_s >= 1:
            windows = cut(
                recording,
                duration_s=length_s,
                stride_s=self.stride_s or length_s,
                start_s=start_s,
                stop_s=stop_s,
                label=source.label,
            )
        if not windows:
            raise RecordingError(
                f"{source.path}: {max(used_s, 0):g} s to use, shorter than a window of {max(length_s, 1):g} s"
            )
        return windows, Counter()

    def _event_windows(self, source: SourceFile, recording: Recording) -> tuple[list[Window], Counter[str]]:
        settings, labels = self.declaration.windows, self.declaration.labels
        windows: list[Window] = []
        dropped: Counter[str] = Counter()
        for event in recording.annotations:
            label = source.label
            if self.declaration.label == EVENT:
                if event.description not in labels:
                    dropped["event that labels does not list"] += 1
                    continue
                if (label := labels[event.description]) is None:
                    dropped["event left out by labels"] += 1
                    continue
            elif settings.events is not None and event.description not in settings.events:
                dropped["event that windows.events does not list"] += 1
                continue
            start_s = event.onset_s + settings.offset_s
            rest_s = event.duration_s - settings.offset_s
            length_s = self.window_s or float(int(rest_s))
            is_single = self.window_s is None or settings.stride_s is None
            if length_s < 1 or (not is_single and rest_s < length_s):
                dropped["event shorter than a window"] += 1
                continue
            found = []
            if start_s >= 0:
                found = cut(
                    recording,
                    duration_s=length_s,
                    stride_s=settings.stride_s or length_s,
                    start_s=start_s,
                    stop_s=start_s + (length_s if is_single else rest_s),
                    label=label,
                )
            if not found:
                dropped["event's window beyond the recording"] += 1
            windows += found
        return windows, dropped

    def _fact(self, name: str, facts: Facts, setting: str, fact: str) -> str:
        if not facts.get(fact):
            raise DataSetError(
                f"{self.declaration.file}: {setting}: {name} has no {fact!r}; known of it: {', '.join(facts)}"
            )
        return facts[fact]

    def _label(self, name: str, facts: Facts) -> str | None:
        declared = self.declaration
        if declared.label is None or declared.label == EVENT:
            return None
        value = self._fact(name, facts, "label", declared.label)
        if value not in declared.labels:
            raise DataSetError(
                f"{declared.file}: labels: {declared.label} of {name} is {value!r}, which is not listed; found there: "
                f"{', '.join(declared.labels)}; add it (null leaves such files out)"
            )
        return declared.labels[value]

    def _split(self, name: str, facts: Facts) -> Split | None:
        declared = self.declaration
        if declared.split is None:
            return None
        value = self._fact(name, facts, "split", declared.split)
        if value not in declared.splits:
            raise DataSetError(
                f"{declared.file}: splits: {declared.split} of {name} is {value!r}, which is not listed; "
                f"say which of train, val and test it is"
            )
        return declared.splits[value]

    def _refuse_divided_subjects(self, sources: list[SourceFile]) -> None:
        split_of: dict[str, SourceFile] = {}
        for source in sources:
            first = split_of.setdefault(source.subject, source)
            if first.split != source.split:
                raise DataSetError(
                    f"{self.declaration.file}: split: one subject is in two splits: {first.recording} is "
                    f"{first.split}, {source.recording} is {source.split}; a person belongs to one"
                )
