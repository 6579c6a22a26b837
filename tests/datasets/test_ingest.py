import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from neurolm.config import ConfigError, UserError, build
from neurolm.datasets import LAYOUTS
from neurolm.datasets.dataset import SourceFile
from neurolm.datasets.hmc import HMC
from neurolm.datasets.ingest import (
    DataConfig,
    PrivacyConfig,
    ShardPlan,
    plan_digest,
    plan_downstream,
    plan_pretraining,
    run_locally,
    write_store,
)
from neurolm.datasets.ledger import NOT_USED, QUARANTINED
from neurolm.eeg.fingerprint_files import read_fingerprints
from neurolm.eeg.privacy import keyed_id, load_key
from neurolm.eeg.quality import FLAGS
from neurolm.eeg.recording import Recording
from neurolm.eeg.shards import Manifest, ManifestMissing, Store
from tests.eeg.edf import write_edf

SETS = {"demo_workload": {"layout": "workload", "folder": "workload"}, "sleep": {"layout": "hmc", "folder": "sleep"}}


@pytest.fixture(scope="module")
def settings(demo_recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """Three subjects of either set, and the broken workload file of a fourth."""
    root = tmp_path_factory.mktemp("few")
    for pattern in ("workload/Subject0[0-3]*", "sleep/recordings/SN00[1-3]*"):
        for path in demo_recordings.glob(pattern):
            (root / path.relative_to(demo_recordings)).parent.mkdir(parents=True, exist_ok=True)
            (root / path.relative_to(demo_recordings)).symlink_to(path)
    key = tmp_path_factory.mktemp("keys") / "privacy.key"
    values = {"root": root, "sets": SETS, "privacy": {"key_file": key}}
    return build(DataConfig, values, source="test")


@pytest.fixture(scope="module")
def written(settings: DataConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """A store, and its manifest; while it was written, there was none."""
    store = tmp_path_factory.mktemp("out") / "store"

    def run(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        for item in items:
            assert not (store / "manifest.json").exists()
            with pytest.raises(ManifestMissing):
                Store.open(store)
            yield function(item)

    return store, write_store(plan_downstream(settings, store), store, run)


def broken_id(settings: DataConfig) -> str:
    return keyed_id(load_key(settings.privacy.key_file), "recording", "workload/Subject00_1.edf")


def test_a_broken_recording_is_quarantined_by_its_id_and_counted(
    settings: DataConfig, written: tuple[Path, Manifest]
) -> None:
    _, manifest = written
    assert list(manifest.quarantined) == [broken_id(settings)]
    (reason,) = manifest.quarantined.values()
    assert reason.startswith("RecordingError: ")
    assert "truncated" in reason
    counts = manifest.counts
    assert counts["num_sources"] == 3 * 2 + 1 + 3
    assert counts["num_recordings"] == counts["num_sources"] - len(manifest.quarantined)
    assert counts["num_subjects"] == 6  # nobody is counted who has no usable recording
    assert counts["hours"] == pytest.approx((6 * 62 + 3 * 600) / 3600, abs=1e-4)


def test_windows_are_counted_by_split_and_label(written: tuple[Path, Manifest]) -> None:
    store, manifest = written
    # Sorted: Subject00 (broken) and Subject01 train, 02 validates, 03 is the test; SN001 trains, SN002, SN003.
    assert manifest.windows_by_split == {split: 2 * 29 + 20 for split in ("train", "val", "test")}
    assert manifest.windows_by_label == {
        "demo_workload": {"rest": 3 * 29, "arithmetic": 3 * 29},
        "sleep": dict.fromkeys(("W", "N1", "N2", "N3", "R"), 12),
    }
    assert sum(file["num_windows"] for file in manifest.files) == manifest.counts["num_windows"] == 3 * 78
    index = Store.open(store).index("train", ["sleep"])
    window = Store.open(store).read(index.rows[:1])[0]
    assert (window.signal.shape, window.label) == ((4, 6000), index.label[0])


def test_every_data_set_has_its_account(written: tuple[Path, Manifest]) -> None:
    store, manifest = written
    workload, sleep = manifest.data_sets["demo_workload"], manifest.data_sets["sleep"]
    assert workload["recordings"] == {"in": 7, "stored": 6, "quarantined": 1}
    assert workload["subjects"] == {"in": 4, "stored": 3}
    assert workload["windows"] == {"in": 174, "stored": 174, "dropped": {}}
    assert workload["classes"] == {label: {"in": 87, "stored": 87} for label in ("rest", "arithmetic")}
    assert workload["hours"]["in"] == pytest.approx(6 * 62 / 3600, abs=1e-5)
    assert workload["hours"]["left_out"] == {NOT_USED: pytest.approx(6 * 2 / 3600, abs=1e-5)}
    assert sleep["hours"] == {"in": 0.5, "stored": 0.5, "left_out": {}}
    assert sleep["channels"]["O2"]["windows"] == 60
    assert manifest.quality["flags"] == FLAGS
    assert manifest.quality["thresholds"]["gap_s"] == 0.1
    stored = [pq.read_table(store / file["name"], columns=["quality"])["quality"] for file in manifest.files]
    assert all(len(flags) in (4, 19) for column in stored for flags in column.to_pylist())


def test_flags_drop_windows_where_the_config_says_so(settings: DataConfig, tmp_path: Path) -> None:
    values = {"large_uv": 50, "reject": ["too_large"], "reject_share": 0.5}
    strict = build(DataConfig, {"root": settings.root, "sets": SETS, "quality": values}, source="test")
    manifest = write_store(only(strict, "workload", tmp_path), tmp_path, run_locally)
    account = manifest.data_sets["demo_workload"]
    dropped = manifest.dropped["too many bad channels (too_large)"]
    assert 0 < dropped < 174
    assert account["windows"] == {"in": 174, "stored": 174 - dropped, "dropped": manifest.dropped}
    assert account["hours"]["left_out"]["too many bad channels (too_large)"] > 0
    for file in manifest.files:
        for flags in pq.read_table(tmp_path / file["name"])["quality"].to_pylist():
            assert sum(flag & FLAGS["too_large"] > 0 for flag in flags) < 0.5 * len(flags)


class Gappy(HMC):
    """Sleep recordings in which values are missing, as in formats that can hold NaN."""

    def read(self, source: SourceFile) -> Recording:
        recording = super().read(source)
        signal = np.array(recording.signal)
        rate = round(recording.sampling_rate_hz)
        if source.subject == "SN001":
            signal[0, 45 * rate] = np.nan
        if source.subject == "SN002":
            signal[:, 5 * rate :: 30 * rate] = np.nan
        return replace(recording, signal=signal)


def test_a_gap_costs_the_windows_over_it_and_a_recording_of_gaps_is_quarantined(
    settings: DataConfig, tmp_path: Path
) -> None:
    plans = [replace(plan, layout=Gappy()) for plan in only(settings, "hmc", tmp_path)]
    manifest = write_store(plans, tmp_path, run_locally)
    account = manifest.data_sets["sleep"]
    assert manifest.dropped == {"not finite": 1 + 20}
    assert account["windows"] == {"in": 60, "stored": 39, "dropped": manifest.dropped}
    assert account["recordings"] == {"in": 3, "stored": 2, "quarantined": 1}
    (reason,) = manifest.quarantined.values()
    assert reason.endswith("no window of it can be stored (not finite: 20)")
    seconds = {name: round(hours * 3600, 1) for name, hours in account["hours"]["left_out"].items()}
    assert seconds == {"not finite": 30, QUARANTINED: 600}
    assert {numbers["in"] for numbers in account["classes"].values()} == {12}
    assert sum(numbers["stored"] for numbers in account["classes"].values()) == 39


def test_no_name_of_a_file_or_person_is_in_the_store(settings: DataConfig, written: tuple[Path, Manifest]) -> None:
    store, manifest = written
    said = [store.name, (store / "manifest.json").read_text()]
    for file in manifest.files:
        table = pq.read_table(store / file["name"]).drop_columns(["signal", "channel_indices"])
        said += [file["name"], str(table.schema), str(pq.read_metadata(store / file["name"]).metadata)]
        said += [str(table.to_pylist())]
    for text in said:
        for word in ("Subject0", "SN00", ".edf", str(settings.root)):
            assert word not in text


def test_the_map_from_ids_to_files_is_private(settings: DataConfig, written: tuple[Path, Manifest]) -> None:
    store, manifest = written
    path = store.parent / "private" / "recordings.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    known = json.loads(path.read_text())
    assert len(known) == manifest.counts["num_sources"]
    assert settings.root is not None
    assert known[broken_id(settings)] == str(settings.root / "workload" / "Subject00_1.edf")


def test_a_map_that_others_could_read_is_closed_again(tmp_path: Path, settings: DataConfig) -> None:
    private = tmp_path / "private"
    private.mkdir()
    (private / "recordings.json").write_text('{"old": "kept.edf"}')
    (private / "recordings.json").chmod(0o644)
    plans = [replace(plan, sources=plan.sources[:1]) for plan in only(settings, "workload", tmp_path / "store")[-1:]]
    write_store(plans, tmp_path / "store", run_locally)
    assert (private / "recordings.json").stat().st_mode & 0o777 == 0o600
    assert json.loads((private / "recordings.json").read_text())["old"] == "kept.edf"


def only(settings: DataConfig, layout: str, store: Path) -> list[ShardPlan]:
    return [plan for plan in plan_downstream(settings, store) if plan.layout.name == layout]


def test_a_second_writing_under_another_key_has_the_same_digest(
    settings: DataConfig, written: tuple[Path, Manifest], tmp_path: Path
) -> None:
    other = replace(settings, privacy=PrivacyConfig(key_file=tmp_path / "other.key"))
    again = write_store(list(reversed(plan_downstream(other, tmp_path))), tmp_path, run_locally)
    first = written[1]
    assert again.data_digest == first.data_digest
    assert again.windows_by_label == first.windows_by_label
    assert set(again.quarantined).isdisjoint(first.quarantined)
    assert again.privacy_key_fingerprint != first.privacy_key_fingerprint


def test_fingerprints_say_who_is_in_a_shard_and_cover_its_windows(written: tuple[Path, Manifest]) -> None:
    store, manifest = written
    index = Store.open(store).index("train")
    members = {one.recording: one for one in read_fingerprints(store, manifest, "train")}
    assert set(members) == set(index.recording)
    assert {one.subject for one in members.values()} == set(index.subject)
    for recording, one in members.items():
        windows = index.take(index.recording == recording)
        begin_s, end_s = windows.start_s.min(), (windows.start_s + windows.num_times / 200).max()
        assert len(one.landmarks) > 5 * (end_s - begin_s)
        assert begin_s <= one.landmarks.times_ms.min() / 1000 and one.landmarks.times_ms.max() / 1000 <= end_s


def test_a_person_has_one_id_in_data_sets_of_the_same_people(settings: DataConfig, tmp_path: Path) -> None:
    (plan, *_) = only(settings, "workload", tmp_path)
    source = plan.sources[0]
    tuh = replace(plan, layout=replace(plan.layout, name="tuab", people="tuh"))
    other = replace(plan, layout=replace(plan.layout, name="tueg", people="tuh"))
    assert tuh.subject_id(source) == other.subject_id(source)
    assert tuh.recording_id(source) != other.recording_id(source)
    alone = [replace(plan, layout=replace(plan.layout, name=name)) for name in ("tuab", "tueg")]
    assert len({one.subject_id(source) for one in (*alone, tuh)}) == 3


def test_a_person_in_two_splits_is_refused_unless_the_published_split_says_so(
    settings: DataConfig, tmp_path: Path
) -> None:
    (plan, *_) = only(settings, "workload", tmp_path / "store")
    parts = [plan.sources[1:2], plan.sources[2:3]]  # both of Subject01
    plans = [
        replace(plan, split=split, path=tmp_path / "store" / f"{split}-workload-00000.parquet", sources=sources)
        for split, sources in zip(("train", "test"), parts, strict=True)
    ]
    with pytest.raises(ConfigError, match=r"data set demo_workload: 1 subjects are in more than one split .*test and"):
        write_store(plans, tmp_path / "store", run_locally)
    assert not (tmp_path / "store" / "manifest.json").exists()
    trials = [replace(one, may_share_subjects=True) for one in plans]
    manifest = write_store(trials, tmp_path / "store", run_locally)
    assert manifest.shared_subjects == ["demo_workload"]


def test_an_old_manifest_does_not_survive_a_writing_that_fails(settings: DataConfig, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")

    def stopped(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_store(plan_downstream(settings, tmp_path), tmp_path, stopped)
    with pytest.raises(ManifestMissing):
        Store.open(tmp_path)


def test_nothing_usable_is_an_error_with_the_reasons(settings: DataConfig, tmp_path: Path) -> None:
    (plan, *_) = only(settings, "workload", tmp_path)
    broken = replace(plan, sources=plan.sources[:1])
    with pytest.raises(ConfigError, match=r"no window came out of 1 shards.*truncated"):
        write_store([broken], tmp_path, run_locally)
    assert not (tmp_path / "manifest.json").exists()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six tiny files in the workload's layout; nothing of them is read."""
    for subject in (1, 2, 3):
        for part in (1, 2):
            (tmp_path / f"Subject{subject:02d}_{part}.edf").write_bytes(b"x" * 10)
    return tmp_path


def planned(root: Path, **values: object) -> str:
    return plan_digest(plan_downstream(build(DataConfig, {"root": root, **values}, source="test"), root / "store"))


def test_plan_digest_follows_files_splits_and_settings(folder: Path) -> None:
    first = planned(folder)
    assert planned(folder) == first
    assert planned(folder, split={"counts": [1, 1, 1]}) == first  # the same division by another name
    assert planned(folder, preprocessing={"high_hz": 70}) != first
    assert planned(folder, quality={"gap_s": 1}) != first
    assert planned(folder, split={"counts": [0, 1, 2]}) != first
    path = folder / "Subject02_1.edf"
    status = path.stat()
    path.write_bytes(b"x" * 11)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    longer = planned(folder)
    path.write_bytes(b"x" * 10)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    touched = planned(folder)
    path.rename(folder / "Subject04_1.edf")
    assert len({first, longer, touched, planned(folder)}) == 4


def test_plan_digest_follows_the_length_of_pretraining_windows(tmp_path: Path) -> None:
    for subject in ("S001", "S002"):
        (tmp_path / subject).mkdir()
        (tmp_path / subject / f"{subject}R01.edf").write_bytes(b"x")

    def digest_of(window_s: float) -> str:
        config = DataConfig(pretraining_root=tmp_path, pretraining_window_s=window_s)
        return plan_digest(plan_pretraining(config, tmp_path / "store"))

    assert digest_of(16) == digest_of(16) != digest_of(8)


def test_pretraining_reads_several_sets_each_with_windows_that_fill_a_sequence(tmp_path: Path) -> None:
    for number, name in enumerate(("mi/S001R01", "mi/S002R01", "siena/PN00-1", "siena/PN01-1")):
        layout = LAYOUTS["motor_imagery" if number < 2 else "siena"]
        write_edf(tmp_path / f"{name}.edf", layout.channels, duration_s=37, sampling_rate_hz=160, seed=number)
    sets = {
        "motor_imagery": {"layout": "motor_imagery", "folder": "mi"},
        "siena": {"layout": "siena", "folder": "siena"},
    }
    values = {"pretraining_root": tmp_path, "pretraining_sets": sets}
    config = build(DataConfig, values, source="test")
    manifest = write_store(plan_pretraining(config, tmp_path / "store"), tmp_path / "store", run_locally)
    assert manifest.windows_by_split == {"train": 3, "val": 3}
    store = Store.open(tmp_path / "store")
    found = {name: set(store.index("train", [name]).num_times) for name in sets}
    assert found == {"motor_imagery": {16 * 200}, "siena": {35 * 200}}
    assert manifest.published_counts["siena"]["differences"] == ["2 recordings are here, 41 are published"]
    assert manifest.config["split"] is None  # data.split is for the downstream sets
    with pytest.raises(ConfigError, match=r"mi: found 1 subject"):
        (tmp_path / "mi/S002R01.edf").unlink()
        plan_pretraining(config, tmp_path / "store")


def test_unset_and_unknown_settings_say_what_to_do(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.root is not set; .* data\.root=DIR"):
        plan_downstream(DataConfig(), folder)
    with pytest.raises(
        ConfigError, match=r"layout 'eegmat' is not known; known layouts: .*hmc, .*motor_imagery, .*workload"
    ):
        planned(folder, sets={"workload": {"layout": "eegmat"}})
    with pytest.raises(UserError, match=r"absent: no such folder"):
        planned(folder, sets={"workload": {"layout": "workload", "folder": "absent"}})


def test_real_recordings_and_a_broken_one(test_data: Path, tmp_path: Path) -> None:
    root = tmp_path / "eegmat"
    root.mkdir()
    for name in ("Subject01_1.edf", "Subject01_2.edf", "Subject02_1.edf", "Subject02_2.edf"):
        (root / name).symlink_to(test_data / "eegmat" / name)
    whole = (test_data / "eegmat" / "Subject03_1.edf").read_bytes()
    (root / "Subject03_1.edf").write_bytes(whole[: len(whole) // 3])
    shutil.copy(write_edf(tmp_path / "short.edf", ["EEG Fp1", "EEG Fp2"]), root / "Subject03_2.edf")
    config = build(DataConfig, {"root": root, "split": {"counts": [1, 1, 1]}}, source="test")
    manifest = write_store(plan_downstream(config, tmp_path / "store"), tmp_path / "store", run_locally)
    assert manifest.windows_by_split == {"train": 58, "val": 58, "test": 0}
    assert manifest.counts["num_sources"] == 6
    assert manifest.counts["num_recordings"] == 4
    truncated, lacking = sorted(manifest.quarantined.values(), key=lambda reason: "truncated" not in reason)
    assert "truncated" in truncated
    assert "EEG F3" in lacking or "F3" in lacking
    assert "Subject03" not in truncated + lacking
    account = manifest.data_sets["workload"]
    assert account["recordings"] == {"in": 6, "stored": 4, "quarantined": 2}
    assert account["windows"] == {"in": 116, "stored": 116, "dropped": {}}
    assert account["hours"]["stored"] * 3600 == pytest.approx(4 * 60, abs=0.01)
    left_out = {name: hours * 3600 for name, hours in account["hours"]["left_out"].items()}
    assert left_out == {NOT_USED: pytest.approx(122 + 3 * 2, abs=0.01)}  # Subject01_1 lasts 182 s, the others 62 s
    assert account["flagged_windows"] == dict.fromkeys(FLAGS, 0) | {
        "any": 4,
        "gap": 4,
    }  # the files' last second was never recorded
