"""BIDS folders: mne-bids knows which file is what; entities and participants.tsv are the facts."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neurolm.datasets.dataset import DataSetError, SourceFile
from neurolm.datasets.declaration import BidsConfig
from neurolm.datasets.declared import DeclaredDataSet, Facts
from neurolm.datasets.tables import TableError, column, read_table
from neurolm.eeg.recording import Recording, RecordingError

_EXTENSIONS = (".edf", ".EDF", ".bdf", ".BDF", ".vhdr", ".set")
_SIDECARS = (("events", ".tsv"), ("channels", ".tsv"), ("eeg", ".json"), ("ieeg", ".json"))


@dataclass(frozen=True, kw_only=True)
class BidsDataSet(DeclaredDataSet):
    """Recordings of a BIDS folder (BIDS 1.x, EEG and iEEG in EDF, BDF, BrainVision or EEGLAB files)."""

    def recordings(self, root: Path) -> Iterable[tuple[Path, Facts, tuple[Path, ...]]]:
        """Every recording of the declared tasks, sessions and runs. Raises DataSetError: no BIDS folder."""
        from mne_bids import find_matching_paths

        if not (root / "dataset_description.json").is_file():
            raise DataSetError(f"{root}: no BIDS folder: dataset_description.json is missing")
        settings = self.declaration.bids or BidsConfig()
        participants = self._participants(root)
        found = find_matching_paths(
            root,
            tasks=_as_list(settings.tasks),
            sessions=_as_list(settings.sessions),
            datatypes=list(settings.datatypes),
            suffixes=list(settings.datatypes),
            extensions=list(_EXTENSIONS),
            ignore_nosub=True,
        )
        runs = None if settings.runs is None else {_plain(run) for run in settings.runs}
        for place in sorted(found, key=lambda place: str(place.fpath)):
            if runs is not None and _plain(place.run or "") not in runs:
                continue
            entities = {name: str(value) for name, value in place.entities.items() if value is not None}
            beside = (_sidecar(place, suffix, extension) for suffix, extension in _SIDECARS)
            yield (
                Path(place.fpath),
                participants.get(f"sub-{place.subject}", {}) | entities,
                tuple(filter(None, beside)),
            )

    def events_file(self, source: SourceFile) -> Path | None:
        """The recording's events.tsv; a declared trigger channel goes before it."""
        if self.declaration.events is not None and self.declaration.events.triggers is not None:
            return None
        path = _sidecar(_place(source), "events", ".tsv")
        if path is None:
            raise RecordingError(f"{source.path}: has no events.tsv")
        return path

    def _recording(self, source: SourceFile) -> Recording:
        """As declared, with the names that channels.tsv gives. Raises RecordingError."""
        place = _place(source)
        self._check_mains(source, _sidecar(place, place.datatype or "eeg", ".json"))
        is_used = self.declaration.bids is None or self.declaration.bids.names == "channels.tsv"
        channels = _sidecar(place, "channels", ".tsv") if is_used else None
        try:
            names = None if channels is None else column(read_table(channels), "name")
        except TableError as error:
            raise RecordingError(f"{source.path}: its channels.tsv: {error}") from None
        return self._signal(source, names)

    def _check_mains(self, source: SourceFile, sidecar: Path | None) -> None:
        if sidecar is None:
            return
        try:
            said = json.loads(sidecar.read_text()).get("PowerLineFrequency")
        except (ValueError, AttributeError):
            raise RecordingError(f"{source.path}: its .json sidecar is not valid JSON") from None
        declared = self.declaration.mains_hz
        if said in (50, 60) and declared is not None and said != declared:
            raise RecordingError(f"{source.path}: its sidecar says mains_hz {said:g}, the declaration {declared:g}")

    def _participants(self, root: Path) -> dict[str, dict[str, str]]:
        path = root / "participants.tsv"
        if not path.is_file():
            return {}
        try:
            rows = read_table(path)
            return dict(zip(column(rows, "participant_id"), rows, strict=True))
        except TableError as error:
            raise DataSetError(f"{path}: {error}") from None


def _place(source: SourceFile) -> Any:
    """The recording as mne-bids' path, below the folder that it was found in."""
    from mne_bids import get_bids_path_from_fname

    root = source.path.parents[len(Path(source.recording).parts) - 1]
    return get_bids_path_from_fname(source.path, check=False).update(root=root)


def _sidecar(place: Any, suffix: str, extension: str) -> Path | None:
    """The nearest file about a recording, in its folder or one above (BIDS' inheritance)."""
    return place.find_matching_sidecar(suffix=suffix, extension=extension, on_error="ignore")


def _as_list(values: tuple[str, ...] | None) -> list[str] | None:
    return None if values is None else list(values)


def _plain(run: str) -> str:
    return run.lstrip("0") or "0" if run.isdigit() else run
