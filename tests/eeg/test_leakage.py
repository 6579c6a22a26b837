import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neurolm.eeg import leakage
from neurolm.eeg.fingerprint import Fingerprint, fingerprint
from neurolm.eeg.fingerprint_files import (
    DIGEST,
    FOLDER,
    FingerprintsMissing,
    RecordingFingerprint,
    read_fingerprints,
    write_fingerprints,
)
from neurolm.eeg.fingerprint_index import FingerprintIndex, Match
from neurolm.eeg.leakage import Overlap, overlap
from neurolm.eeg.manifest import Manifest, read_manifest, write_manifest
from neurolm.eeg.recording import Recording


def landmarks(seed: int, number: int = 400) -> Fingerprint:
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(0, 60_000, number)).astype(np.uint32)
    return Fingerprint(rng.integers(0, 2**32, number, dtype=np.uint32), times)


def write_store(
    folder: Path, recordings: Sequence[tuple[str, str, str, Fingerprint]], key: str | None = "key", **changes: object
) -> Path:
    """A store of split, subject, recording and landmarks, without a window."""
    folder.mkdir()
    files = []
    for split in ("train", "val", "test"):
        members = [RecordingFingerprint(folder.name, *who) for where, *who in recordings if where == split]
        shard = folder / f"{split}-{folder.name}-00000.parquet"
        shard.write_bytes(b"")
        files.append({"name": shard.name, "split": split, "num_windows": 0, DIGEST: write_fingerprints(shard, members)})
    digest = hashlib.sha256(str(folder).encode()).hexdigest()
    values = {"data_digest": digest, "files": files, "counts": {}, "privacy_key_fingerprint": key}
    write_manifest(folder, Manifest(**values | changes))  # type: ignore[arg-type]
    return folder


def test_a_store_gives_back_what_was_written_and_the_same_bytes(tmp_path: Path) -> None:
    members = [("test", "anna", "one", landmarks(1)), ("test", "bert", "two", landmarks(2, 0))]
    store, again = write_store(tmp_path / "a", members), write_store(tmp_path / "b", members)
    first, second = read_fingerprints(store, read_manifest(store), "test")
    assert (first.data_set, first.subject, first.recording) == ("a", "anna", "one")
    assert np.array_equal(first.landmarks.hashes, landmarks(1).hashes)
    assert np.array_equal(first.landmarks.times_ms, landmarks(1).times_ms)
    assert (second.subject, len(second.landmarks)) == ("bert", 0)
    assert not list(read_fingerprints(store, read_manifest(store), "train"))
    names = [path.name for path in sorted((store / FOLDER).iterdir())]
    assert names == [f"{split}-a-00000.parquet" for split in ("test", "train", "val")]
    members = [("test", *member[1:]) for member in members]
    third = write_store(tmp_path / "c", members)
    one, other = (next((place / FOLDER).glob("train-*")).read_bytes() for place in (again, third))
    assert one == other


def test_an_index_finds_recordings_and_where_they_begin() -> None:
    whole, other = landmarks(1), landmarks(2)
    part = whole.within([(20, 40)])
    crop = Fingerprint(part.hashes, part.times_ms - np.uint32(20_000))
    index = FingerprintIndex([other, crop])
    assert index.find(whole) == [Match(1, pytest.approx(20.0), pytest.approx(40, abs=2))]
    assert FingerprintIndex([other, whole]).find(crop)[0].offset_s == pytest.approx(-20.0)
    assert index.find(landmarks(3)) == []
    assert index.find(landmarks(3, 0)) == []
    assert FingerprintIndex([]).find(whole) == []


@pytest.mark.parametrize(
    ("times_ms", "is_found"),
    [
        ([0, 600, 1200, 1800], True),
        ([0, 600, 1200], False),  # three half seconds
        ([0, 10, 20, 30], False),  # four landmarks of one moment
    ],
)
def test_it_takes_four_moments(times_ms: list[int], is_found: bool) -> None:
    few = Fingerprint(np.arange(len(times_ms), dtype=np.uint32), np.array(times_ms, dtype=np.uint32))
    later = Fingerprint(few.hashes, few.times_ms + np.uint32(5000))
    assert bool(FingerprintIndex([few]).find(later)) == is_found
    scattered = Fingerprint(few.hashes, few.times_ms * np.uint32(2))
    assert not FingerprintIndex([few]).find(scattered)  # the same hashes, at no common offset


def test_a_hash_of_everybody_says_nothing() -> None:
    common = Fingerprint(np.arange(8, dtype=np.uint32), np.arange(8, dtype=np.uint32) * 700)
    assert FingerprintIndex([common] * 51).find(common) == []
    assert len(FingerprintIndex([common] * 50).find(common)) == 50


def pair(tmp_path: Path, key: str | None = "key") -> tuple[Path, Path]:
    """A downstream store, and a pre-training store with one of its test subjects and one of its test signals."""
    test = [
        ("train", "anna", "a1", landmarks(1)),
        ("test", "bert", "b1", landmarks(2)),
        ("test", "cleo", "c1", landmarks(3)),
    ]
    training = [
        ("train", "bert", "p1", landmarks(12)),  # another recording of a test subject
        ("val", "dora", "p2", landmarks(3)),  # a test recording under another name
        ("train", "anna", "p3", landmarks(1)),  # trained on in both: no harm
    ]
    return write_store(tmp_path / "tueg", training, key), write_store(tmp_path / "tuab", test)


def test_subjects_and_signals_are_found(tmp_path: Path) -> None:
    found = overlap(*pair(tmp_path))
    assert [(one.subject, one.training_set, one.training_split) for one in found.subjects] == [
        ("bert", "tueg", "train")
    ]
    (signal,) = found.signals
    assert (signal.test_recording, signal.training_recording, signal.training_split) == ("c1", "p2", "val")
    assert found.test_subjects == {"bert", "cleo"}
    assert found.test_recordings == {"c1"}
    assert (found.num_training_recordings, found.num_test_recordings, found.num_unrecognisable) == (3, 2, 0)
    said = found.describe()
    assert "subjects in both: 1 (1 in train of tueg and test of tuab): bert" in said
    assert "test recordings with a signal in both: 1 (1 in val of tueg and test of tuab): c1 in p2 at +0.0 s" in said


@pytest.mark.parametrize("key", ["another", None])
def test_other_keys_leave_the_signals(tmp_path: Path, key: str | None) -> None:
    found = overlap(*pair(tmp_path, key))
    assert not found.has_one_key
    assert not found.subjects
    assert len(found.signals) == 1


def test_a_store_is_compared_with_itself(tmp_path: Path) -> None:
    clean = write_store(tmp_path / "clean", [("train", "anna", "a", landmarks(1)), ("test", "bert", "b", landmarks(2))])
    assert not overlap(clean, clean)
    trials = [("train", "anna", "a1", landmarks(1)), ("test", "anna", "a2", landmarks(2))]
    assert overlap(write_store(tmp_path / "trials", trials), tmp_path / "trials").subjects
    seed = write_store(tmp_path / "seed", trials, shared_subjects=["seed"])  # its published split is by trial
    assert not overlap(seed, seed)
    assert overlap(write_store(tmp_path / "pre", trials, shared_subjects=["pre"]), seed).subjects


def test_a_comparison_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training, test = pair(tmp_path)
    first = overlap(training, test)
    with monkeypatch.context() as patch:
        patch.setattr(leakage, "_compare", None)
        assert overlap(training, test) == first
    manifest = read_manifest(training)
    write_manifest(training, replace(manifest, privacy_key_fingerprint="another"))
    assert overlap(training, test) != first
    assert isinstance(first, Overlap) and first


def test_without_a_test_split_there_is_nothing_to_compare(tmp_path: Path) -> None:
    training = write_store(tmp_path / "only", [("train", "anna", "a", landmarks(1))])
    assert not overlap(training, training)


def test_missing_changed_or_other_fingerprints_are_refused(tmp_path: Path) -> None:
    training, test = pair(tmp_path)
    path = test / FOLDER / "test-tuab-00000.parquet"
    whole = path.read_bytes()
    path.unlink()
    with pytest.raises(FingerprintsMissing, match=r"test-tuab-00000\.parquet: .*missing; make the store again"):
        overlap(training, test)
    path.write_bytes(whole[:-1] + b"x")
    with pytest.raises(FingerprintsMissing, match="not the fingerprints that the manifest names"):
        overlap(training, test)
    path.write_bytes(whole)
    manifest = json.loads((test / "manifest.json").read_text())
    for file in manifest["files"]:
        del file[DIGEST]
    (test / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(FingerprintsMissing, match="missing; make the store again"):
        overlap(training, test)


def test_fingerprints_of_a_real_recording_need_a_hundredth_of_its_windows(test_data: Path, tmp_path: Path) -> None:
    from neurolm.eeg.recording import read_recording

    recording = read_recording(test_data / "eegmat" / "Subject01_1.edf")
    marks = fingerprint(Recording(recording.signal, recording.sampling_rate_hz, recording.channels))
    shard = tmp_path / "train-a-00000.parquet"
    write_fingerprints(shard, [RecordingFingerprint("a", "b", "c", marks)])
    size = (tmp_path / FOLDER / shard.name).stat().st_size
    assert size < 150 * recording.duration_s + 5000
