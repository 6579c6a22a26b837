"""A data set declared in YAML: the settings, and what makes them contradict each other.

What a file is about is said by *facts*: the named groups of ``path``, the columns of its row in ``table``, and four
that every path has (see `Declaration.subject`). ``subject``, ``label`` and ``split`` each name a fact.
"""

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from neurolm.config import build, config, read
from neurolm.datasets.splits import Split
from neurolm.eeg.arrays import ArrayFormat
from neurolm.eeg.channels import UnknownChannelError, canonical_name, known_name

EVENT = "event"
"""As ``label``: every window is labelled by the event that it is cut around."""


def _as_text(value: Any) -> Any:
    """What YAML made of an unquoted 1 or 01, as text again; yes and no cannot be told from true and false."""
    if isinstance(value, bool):
        raise ValueError(f"YAML reads this as {value}; put it in quotes")
    return str(value) if isinstance(value, int | float) else value


def _as_texts(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_as_text(item) for item in value]
    return [_as_text(value)] if isinstance(value, str | int | float) else value


def _as_names(value: Any) -> Any:
    """A list of labels stands for each under its own name."""
    if isinstance(value, list | tuple):
        return {_as_text(item): _as_text(item) for item in value}
    if isinstance(value, dict):
        return {_as_text(name): _as_text(item) for name, item in value.items()}
    return value


Text = Annotated[str, BeforeValidator(_as_text)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_as_texts)]


@config
class WindowsConfig:
    """Which windows are cut from a recording."""

    length_s: Annotated[int, Field(gt=0)] | None = None
    """Length in whole seconds; null: one window as long as the part that is used (around events: as the event)."""
    stride_s: Annotated[float, Field(gt=0)] | None = None
    """Seconds from one window to the next; null: its length (around events: one window an event)."""
    start_s: Annotated[float, Field(ge=0)] = 0.0
    """Where in the recording the first window begins."""
    stop_s: Annotated[float, Field(gt=0)] | None = None
    """Where the last window has to end; null: at the recording's end."""
    last_s: Annotated[float, Field(gt=0)] | None = None
    """Use only so many seconds at the recording's end; a shorter recording is refused."""
    around: Literal["file", "events"] = "file"
    """Cut the file from start to end, or around its events."""
    events: Texts | None = None
    """Which events, where they are not the labels; null: all."""
    offset_s: float = 0.0
    """Where the first window of an event begins, in seconds after its onset; may be negative."""

    @model_validator(mode="after")
    def _agree(self) -> "WindowsConfig":
        part = {"start_s": self.start_s, "stop_s": self.stop_s, "last_s": self.last_s}
        if self.last_s is not None and (self.start_s or self.stop_s is not None):
            raise ValueError("last_s counts from the end; leave out start_s and stop_s")
        if self.stop_s is not None and self.stop_s <= self.start_s:
            raise ValueError(f"stop_s {self.stop_s:g} is not behind start_s {self.start_s:g}")
        if self.length_s is None and self.stride_s is not None:
            raise ValueError("stride_s needs length_s")
        if self.around == "events" and (wrong := [name for name, value in part.items() if value]):
            raise ValueError(f"{wrong[0]} is for around: file; around events use offset_s, length_s and stride_s")
        if self.around == "file" and (self.events or self.offset_s):
            raise ValueError("events and offset_s are for around: events")
        return self


@config
class EventsConfig:
    """Where a recording's events stand."""

    file: str | None = None
    """Table beside the recording, such as "{stem}_events.tsv" ({name}, {stem}, {prefix} and the groups of `path` are
    filled in); null: the recording's own annotations (BIDS: its events.tsv)."""
    onset: str = "onset"
    """Column of the onset."""
    duration: str | None = None
    """Column of the duration; null: events last no time."""
    text: str = "trial_type"
    """Column of what happened."""
    unit: Literal["s", "ms", "points"] = "s"
    """What onsets and durations are counted in; points are those of the recording as it was recorded, from 0."""
    triggers: str | None = None
    """Trigger channel of the recording (such as Status) whose codes are the events."""

    @model_validator(mode="after")
    def _agree(self) -> "EventsConfig":
        if self.file is not None and self.triggers is not None:
            raise ValueError("file and triggers are two sources of events; choose one")
        return self


@config
class TableConfig:
    """A table with a row for every subject or file."""

    file: Path
    """The .csv or .tsv file, relative to the data set's folder."""
    key: str
    """Column that says which files a row is about."""
    match: str = "subject"
    """Fact of a file that stands in that column: a group of `path`, or path, name, stem, prefix, suffix, folder."""


@config
class BidsConfig:
    """Which recordings of a BIDS folder; null: all."""

    tasks: Texts | None = None
    """Task labels."""
    sessions: Texts | None = None
    """Session labels."""
    runs: Texts | None = None
    """Run labels; 1 and 01 are the same."""
    datatypes: Texts = ("eeg",)
    """Kinds of recordings: eeg, ieeg."""
    names: Literal["channels.tsv", "file"] = "channels.tsv"
    """Where the channels' names stand; file: a channels.tsv that does not fit its recording is passed over."""


@config
class Declaration:
    """Where a data set's recordings lie, whose they are, what they mean and how they are cut."""

    name: Text
    """Short name of the collection. Ids of subjects and recordings depend on it: declarations about the same people
    share a name, so that they are known to be the same."""
    mains_hz: Annotated[float, Field(gt=0)] | None
    """Mains frequency where it was recorded: 50 or 60; null: nothing is to be removed."""
    windows: WindowsConfig
    """Which windows are cut."""
    files: Texts = ()
    """Globs of the recordings below the folder, such as "**/*.edf"; hidden files are left out. Not for BIDS."""
    exclude: Texts = ()
    """Globs of files that are none of them."""
    path: str | None = None
    """Regular expression for the path of every recording, or for its last parts; its named groups are facts."""
    table: TableConfig | None = None
    """Table whose columns are facts (BIDS: participants.tsv)."""
    bids: BidsConfig | None = None
    """Which recordings of a BIDS folder; only with layout: bids."""
    subject: Text = "subject"
    """The fact that says who it is: a group of `path`, a column of `table`, or folder, stem, prefix, suffix (of
    rest/S01_eyes.edf these four are rest, S01_eyes, S01 and eyes)."""
    label: Text | None = None
    """The fact that is the class of a file, or `event`; null: unlabelled."""
    labels: Annotated[dict[str, str | None], BeforeValidator(_as_names)] = Field(default_factory=dict)
    """What the label's fact or event says, and the class that it means, in the order of the classes; a list where they
    are the same. null leaves files or events out."""
    split: Text | None = None
    """The fact that says whether a file is train, val or test; null: `data.split` divides the subjects."""
    splits: Annotated[dict[str, Split], BeforeValidator(_as_names)] = Field(
        default={"train": "train", "val": "val", "test": "test"}
    )
    """What the split's fact says, and which split that is."""
    split_counts: tuple[int, int, int] | None = None
    """Train, val and test subjects that `data.split.counts: auto` takes."""
    channels: dict[str, str] | Texts | None = None
    """Channels in the order wanted, by the file's own or by canonical names, or as the file's own names and what they
    are; null: every electrode of the vocabulary."""
    drop: Texts = ()
    """Channels that are left out, by name or as a pattern such as "EOG*". Any other that is not read is an error."""
    reference: Literal["as recorded", "average"] | Texts = "as recorded"
    """What is subtracted: nothing, the mean of all channels, or the mean of these electrodes, which then go."""
    scale: Annotated[float, Field(gt=0)] | None = None
    """Multiplies signals whose header has a wrong unit: 1.0e+6 where volts are called microvolts."""
    arrays: ArrayFormat | None = None
    """Rate, unit and channels of .npz, .mat and .csv files."""
    events: EventsConfig | None = None
    """Where events stand; null: annotations (BIDS: events.tsv)."""
    title: str = ""
    """Name in full."""
    licence: str = ""
    """Licence of the recordings."""
    citation: str = ""
    """What to cite."""
    url: str = ""
    """Where they are from."""
    file: Annotated[str, Field(exclude=True)] = dataclasses.field(default="this data set", repr=False, compare=False)
    """The YAML file, put here when it is read."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes in their order."""
        return tuple(dict.fromkeys(label for label in self.labels.values() if label is not None))

    @model_validator(mode="after")
    def _agree(self) -> "Declaration":
        self._check_facts()
        self._check_labels()
        self._check_channels()
        return self

    def _check_facts(self) -> None:
        if (self.bids is None) != bool(self.files):
            raise ValueError("files: give either `files` (globs of the recordings) or `bids` (a BIDS folder)")
        if self.path is not None:
            try:
                re.compile(self.path)
            except re.error as error:
                raise ValueError(f"path: not a regular expression: {error}") from None
        if self.bids is not None and (self.path or self.table):
            raise ValueError("path and table are not for BIDS: its entities and participants.tsv are the facts")

    def _check_labels(self) -> None:
        is_by_event = self.label == EVENT
        if (self.label is None) != (not self.labels):
            raise ValueError("labels: label and labels belong together: which fact, and what its values mean")
        if is_by_event and self.windows.around != "events":
            raise ValueError("label: event needs windows.around: events")
        if is_by_event and self.windows.events is not None:
            raise ValueError("windows.events is not for label: event; labels says which events count (null: not)")
        if self.events is not None and self.windows.around != "events":
            raise ValueError("events is only read with windows.around: events")

    def _check_channels(self) -> None:
        named = self.channels.values() if isinstance(self.channels, dict) else self.channels or ()
        if isinstance(self.channels, dict):
            _check_names("channels", named)
        if isinstance(self.reference, str):
            return
        _check_names("reference", self.reference)
        references = {canonical_name(name) for name in self.reference}
        if both := sorted(references & {known_name(name) for name in named}):
            raise ValueError(f"reference: {', '.join(both)} cannot be a channel too: it would be flat")


def _check_names(setting: str, names: Iterable[str]) -> None:
    for name in names:
        try:
            canonical_name(name)
        except UnknownChannelError as error:
            raise ValueError(f"{setting}: {error}") from None


def declared(values: Any) -> Any:
    """A declaration from the settings that `config.read` found; its own file is named in errors. Raises ConfigError."""
    if not isinstance(values, dict):
        return values
    return build(Declaration, values, source=str(values.get("file", "declaration")))


def read_declaration(path: Path) -> Declaration:
    """The declaration in a file. Raises ConfigError."""
    return build(Declaration, read(path) | {"file": str(path)}, source=str(path))
