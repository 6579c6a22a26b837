"""What training data and a test split share: subjects, by keyed id, and signals, by fingerprint.

Only fingerprints and ids are read (`fingerprint_files`), so no test split is opened. A comparison is made once: its
result lies in `home` under the digests of both sides.
"""

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from neurolm.eeg.fingerprint import FINGERPRINT_VERSION
from neurolm.eeg.fingerprint_files import DIGEST, RecordingFingerprint, read_fingerprints
from neurolm.eeg.fingerprint_index import MIN_VOTES, FingerprintIndex
from neurolm.eeg.manifest import Manifest, read_manifest
from neurolm.eeg.privacy import home

VERSION = 1
"""Of the comparison; another one compares anew."""
TRAINING_SPLITS = ("train", "val")
"""Validation chooses weights and trials, so its subjects must not be tested on either."""

_SHOWN = 5


@dataclass(frozen=True)
class SharedSubject:
    """A person on both sides."""

    subject: str
    training_set: str
    training_split: str
    test_set: str


@dataclass(frozen=True)
class SharedSignal:
    """A test recording, or a part of one, that is also trained on."""

    test_recording: str
    test_subject: str
    test_set: str
    training_recording: str
    training_set: str
    training_split: str
    offset_s: float
    """Time in the training recording minus time in the test recording."""
    votes: int
    """Half seconds in which both agree."""


@dataclass(frozen=True)
class Overlap:
    """What one store's training splits and another's test split share."""

    subjects: tuple[SharedSubject, ...]
    signals: tuple[SharedSignal, ...]
    has_one_key: bool
    """Whether ids could be compared: both stores were made with one key."""
    num_training_recordings: int
    num_test_recordings: int
    num_unrecognisable: int
    """Recordings of either side, too short or too flat to have a fingerprint."""

    def __bool__(self) -> bool:
        return bool(self.subjects or self.signals)

    @property
    def test_subjects(self) -> set[str]:
        """Keyed ids of the test subjects that are trained on, known by id or by signal."""
        return {one.subject for one in self.subjects} | {one.test_subject for one in self.signals}

    @property
    def test_recordings(self) -> set[str]:
        """Keyed ids of the test recordings whose signals are trained on."""
        return {one.test_recording for one in self.signals}

    def describe(self) -> str:
        """Counts, data sets and the first ids, for people."""
        lines = []
        if self.subjects:
            ids = _first(sorted({one.subject for one in self.subjects}))
            number = len({one.subject for one in self.subjects})
            lines.append(f"subjects in both: {number} ({_places(self.subjects)}): {ids}")
        if self.signals:
            pairs = _first(f"{s.test_recording} in {s.training_recording} at {s.offset_s:+.1f} s" for s in self.signals)
            number = len(self.test_recordings)
            lines.append(f"test recordings with a signal in both: {number} ({_places(self.signals)}): {pairs}")
        return "; ".join(lines)


def overlap(training: Path, test: Path) -> Overlap:
    """What the training splits of one store share with the test split of another, or of the same.

    Raises:
        ManifestMissing, ManifestError: one of them is no finished store.
        FingerprintsMissing: a store was written without fingerprints.
    """
    manifests = read_manifest(training), read_manifest(test)
    sides = [
        [manifest.data_digest, manifest.privacy_key_fingerprint, manifest.shared_subjects, sorted(_digests(manifest))]
        for manifest in manifests
    ]
    known = [VERSION, FINGERPRINT_VERSION, MIN_VOTES, *sides]
    path = home() / "overlaps" / f"{hashlib.sha256(json.dumps(known).encode()).hexdigest()}.json"
    if path.is_file():
        return _from_dict(json.loads(path.read_text()))
    found = _compare(training, manifests[0], test, manifests[1])
    path.parent.mkdir(mode=0o700, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(asdict(found)))
    aside.replace(path)
    return found


def _compare(training: Path, training_manifest: Manifest, test: Path, test_manifest: Manifest) -> Overlap:
    tested = list(read_fingerprints(test, test_manifest, "test"))
    index = FingerprintIndex([one.landmarks for one in tested])
    is_one_store = training_manifest.data_digest == test_manifest.data_digest
    exempt = set(test_manifest.shared_subjects) if is_one_store else set()
    key = training_manifest.privacy_key_fingerprint
    has_one_key = key is not None and key == test_manifest.privacy_key_fingerprint
    test_sets: dict[str, set[str]] = defaultdict(set)
    for one in tested:
        test_sets[one.subject].add(one.data_set)
    subjects: set[SharedSubject] = set()
    signals: list[SharedSignal] = []
    num_training, num_unrecognisable = 0, sum(map(_is_unrecognisable, tested))
    for split in TRAINING_SPLITS if tested else ():
        for one in read_fingerprints(training, training_manifest, split):
            num_training += 1
            num_unrecognisable += _is_unrecognisable(one)
            if has_one_key:
                subjects |= {
                    SharedSubject(one.subject, one.data_set, split, test_set)
                    for test_set in test_sets.get(one.subject, ())
                    if not (one.data_set == test_set and test_set in exempt)
                }
            signals += [
                SharedSignal(
                    test_recording=tested[match.number].recording,
                    test_subject=tested[match.number].subject,
                    test_set=tested[match.number].data_set,
                    training_recording=one.recording,
                    training_set=one.data_set,
                    training_split=split,
                    offset_s=match.offset_s,
                    votes=match.votes,
                )
                for match in index.find(one.landmarks)
            ]
    return Overlap(
        subjects=tuple(sorted(subjects, key=lambda one: (one.subject, one.training_set, one.training_split))),
        signals=tuple(sorted(signals, key=lambda one: (one.test_recording, one.training_recording))),
        has_one_key=has_one_key,
        num_training_recordings=num_training,
        num_test_recordings=len(tested),
        num_unrecognisable=num_unrecognisable,
    )


def _is_unrecognisable(recording: RecordingFingerprint) -> bool:
    return len(recording.landmarks) < MIN_VOTES


def _digests(manifest: Manifest) -> list[str]:
    return [f"{file['split']} {file.get(DIGEST)}" for file in manifest.files]


def _from_dict(values: dict[str, Any]) -> Overlap:
    return Overlap(
        **values
        | {
            "subjects": tuple(SharedSubject(**one) for one in values["subjects"]),
            "signals": tuple(SharedSignal(**one) for one in values["signals"]),
        }
    )


def _places(shared: Iterable[SharedSubject | SharedSignal]) -> str:
    """Which data sets and splits meet, and how often."""
    counts = Counter(f"{s.training_split} of {s.training_set} and test of {s.test_set}" for s in shared)
    return ", ".join(f"{count} in {place}" for place, count in sorted(counts.items()))


def _first(texts: Iterable[str]) -> str:
    listed = list(texts)
    more = f", and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more
