import pickle
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from neurolm.config import build, load
from neurolm.datasets import LAYOUTS
from neurolm.datasets.dataset import DataSetError, EEGDataset, SourceFile
from neurolm.datasets.declaration import Declaration, read_declaration
from neurolm.datasets.folder import FolderDataSet
from neurolm.datasets.ingest import DataConfig, Step, plan_downstream, run_locally, write_store
from neurolm.eeg.channels import CHANNELS
from neurolm.eeg.preprocessing import PreprocessingConfig, preprocess
from neurolm.eeg.recording import Annotation, Recording, RecordingError
from neurolm.eeg.windows import Window
from tests.eeg.edf import write_edf

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "ray_jobs" / "configs" / "datasets"


def shipped(name: str) -> FolderDataSet:
    data_set = FolderDataSet.of(read_declaration(SHIPPED / f"{name}.yaml"))
    assert isinstance(data_set, FolderDataSet)
    return data_set


def own(**settings: Any) -> FolderDataSet:
    values = {
        "name": "own",
        "files": "**/*.edf",
        "subject": "stem",
        "mains_hz": 50,
        "windows": {"length_s": 4},
    } | settings
    data_set = FolderDataSet.of(build(Declaration, values | {"file": "own.yaml"}, source="own.yaml"))
    assert isinstance(data_set, FolderDataSet)
    return data_set


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def facts(sources: list[SourceFile]) -> list[tuple[str, str, str | None]]:
    return [(source.recording, source.subject, source.label) for source in sources]


def windows_of(data_set: EEGDataset, source: SourceFile) -> list[Window]:
    recording = preprocess(data_set.read(source), PreprocessingConfig(), data_set.mains_hz)
    return data_set.windows(source, recording)[0]


@pytest.mark.parametrize(
    ("name", "layout", "folder", "recordings"),
    [
        ("eegmat", "workload", "eegmat", ["Subject00_1.edf", "Subject02_1.edf", "Subject30_2.edf"]),
        ("eegmmidb", "motor_imagery", "eegmmidb", ["S001/S001R01.edf", "S042/S042R04.edf", "S088/S088R10.edf"]),
    ],
)
def test_yaml_gives_the_windows_of_the_built_in_data_set(
    test_data: Path, name: str, layout: str, folder: str, recordings: list[str]
) -> None:
    declared, built_in = shipped(name), LAYOUTS[layout]
    ours, theirs = declared.find(test_data / folder), built_in.find(test_data / folder)
    assert facts(ours) == facts(theirs)
    assert (declared.name, declared.mains_hz, declared.labels, declared.paper_counts) == (
        built_in.name,  # and so their ids are the same
        built_in.mains_hz,
        built_in.labels,
        built_in.paper_counts,
    )
    for source in ours:
        if source.recording not in recordings:
            continue
        found, expected = windows_of(declared, source), windows_of(built_in, source)
        assert len(found) == len(expected) > 0
        for window, other in zip(found, expected, strict=True):
            assert (window.start_s, window.label, window.channel_indices) == (
                other.start_s,
                other.label,
                other.channel_indices,
            )
            np.testing.assert_array_equal(window.signal, other.signal)


def test_channels_that_are_not_read_are_listed(test_data: Path) -> None:
    data_set = shipped("eegmat")
    source = data_set.find(test_data / "eegmat")[0]
    assert data_set.read(source).left_out == ("EEG A2-A1", "ECG ECG")
    forgetful = own(channels=data_set.declaration.channels, drop=["ECG ECG"])
    with pytest.raises(
        RecordingError, match=r"Subject00_1\.edf: channel 'EEG A2-A1' is not in the electrode vocabulary"
    ):
        forgetful.read(source)


def test_fist_imagery_by_annotations(test_data: Path) -> None:
    data_set = shipped("fist_imagery")
    sources = data_set.find(test_data / "eegmmidb")
    assert len(sources) == len({source.subject for source in sources}) == 14
    windows: list[Window] = []
    dropped: Counter[str] = Counter()
    for source in sources:
        recording = data_set.read(source)
        found, reasons = data_set.windows(source, recording)
        onsets = [mark.onset_s for mark in recording.annotations if mark.description in ("T1", "T2")]
        assert [window.start_s for window in found] == pytest.approx(onsets, abs=1 / 160)
        windows, dropped = windows + found, dropped + reasons
    assert Counter(window.label for window in windows) == {"left fist": 106, "right fist": 104}
    assert dropped == {"event left out by labels": 210}
    assert {window.signal.shape for window in windows} == {(64, 640)}


def test_eyes_by_run(test_data: Path) -> None:
    data_set = shipped("eyes")
    sources = data_set.find(test_data / "eegmmidb")
    assert Counter(source.label for source in sources) == {"open": 3, "closed": 3}
    assert {source.subject for source in sources} == {"S001", "S015", "S042"}
    assert data_set.name == shipped("fist_imagery").name, "the same people have the same ids"
    windows, _ = data_set.windows(sources[0], data_set.read(sources[0]))
    assert {window.signal.shape for window in windows} == {(64, 640)} and len(windows) == 15


def test_eegmmidb_in_the_channels_of_eegmat(test_data: Path) -> None:
    few, all_channels, eegmat = shipped("eegmmidb_ten_twenty"), shipped("eegmmidb"), shipped("eegmat")
    source = few.find(test_data / "eegmmidb")[0]
    found, whole = windows_of(few, source), windows_of(all_channels, source)
    other = eegmat.find(test_data / "eegmat")[0]
    assert set(found[0].channel_indices) == set(windows_of(eegmat, other)[0].channel_indices)
    names = [CHANNELS[place] for place in found[0].channel_indices]
    renamed = {"T3": "T7", "T4": "T8", "T5": "P7", "T6": "P8"}
    rows = [whole[0].channel_indices.index(CHANNELS.index(renamed.get(name, name))) for name in names]
    assert len(found) == 4 * len(whole) + 3, "61 s in windows of 4 s, and of 16 s"
    for number, window in enumerate(found[: 4 * len(whole)]):
        start = number % 4 * 800
        np.testing.assert_array_equal(window.signal, whole[number // 4].signal[rows, start : start + 800])


@pytest.mark.parametrize("name", ["eyes", "fist_imagery"])
def test_tasks_of_eegmmidb_in_the_channels_of_eegmat(test_data: Path, name: str) -> None:
    few, whole, unlabelled = shipped(f"{name}_ten_twenty"), shipped(name), shipped("eegmmidb_ten_twenty")
    sources = few.find(test_data / "eegmmidb")
    assert facts(sources) == facts(whole.find(test_data / "eegmmidb")) and few.labels == whole.labels
    found, wanted = windows_of(few, sources[0]), windows_of(whole, sources[0])
    assert [(one.start_s, one.label) for one in found] == [(one.start_s, one.label) for one in wanted]
    assert found[0].channel_indices == windows_of(unlabelled, sources[0])[0].channel_indices


def test_labels_from_folder_and_group(tmp_path: Path) -> None:
    touch(tmp_path, "sick/a/S01_1.edf", "sick/a/S01_2.edf", "well/S02_1.edf", "well/.S02_1.edf", "notes.txt")
    folder = own(label="folder", labels=["a", "well"], path=r"(?P<subject>S\d+)_\d\.edf", subject="subject")
    assert facts(folder.find(tmp_path)) == [
        ("sick/a/S01_1.edf", "S01", "a"),
        ("sick/a/S01_2.edf", "S01", "a"),
        ("well/S02_1.edf", "S02", "well"),
    ]
    group = own(
        path=r"(?P<state>\w+)/(?:.*/)?(?P<who>S\d+)_\d\.edf",
        subject="who",
        label="state",
        labels={"sick": "ill", "well": "healthy"},
    )
    assert [source.label for source in group.find(tmp_path)] == ["ill", "ill", "healthy"]


@pytest.mark.parametrize(("name", "separator"), [("info.csv", ","), ("info.csv", ";"), ("info.tsv", "\t")])
def test_subject_label_and_split_from_a_table(tmp_path: Path, name: str, separator: str) -> None:
    touch(tmp_path, "r1.edf", "r2.edf", "r3.edf")
    rows = [
        ["file", "person", "state", "fold"],
        ["r1", "anna", "1", "a"],
        ["r2", "anna", "2", "a"],
        ["r3", "ben", "1", "b"],
    ]
    (tmp_path / name).write_text("\n".join(separator.join(row) for row in rows))
    data_set = own(
        table={"file": name, "key": "file", "match": "stem"},
        subject="person",
        label="state",
        labels={"1": "calm", "2": "busy"},
        split="fold",
        splits={"a": "train", "b": "test"},
    )
    sources = data_set.find(tmp_path)
    assert [(s.subject, s.label, s.split) for s in sources] == [
        ("anna", "calm", "train"), ("anna", "busy", "train"), ("ben", "calm", "test"),
    ]  # fmt: skip
    plans = plan_downstream(
        build(
            DataConfig,
            {"root": tmp_path, "sets": {"own": {"layout": "folder", "declaration": data_set.declaration}}},
            source="test",
        ),
        tmp_path / "store",
    )
    assert [(plan.split, len(plan.sources)) for plan in plans] == [("train", 2), ("test", 1)]


@pytest.mark.parametrize(
    ("settings", "names", "message"),
    [
        ({}, [], r"no recording of own found; own\.yaml expects \*\*/\*\.edf"),
        ({"subject": "who"}, ["a.edf"], r"own\.yaml: subject: a\.edf has no 'who'; known of it: path, name, stem"),
        ({"path": r"S\d\.edf"}, ["S1.edf", "x.edf"], r"own\.yaml: path: x\.edf is found by files, but does not match"),
        (
            {"label": "suffix", "labels": ["1"]},
            ["a_1.edf", "a_3.edf"],
            r"own\.yaml: labels: suffix of a_3\.edf is '3', which is not listed; found there: 1; add it \(null",
        ),
        (
            {"split": "folder", "subject": "prefix"},
            ["train/a_1.edf", "test/a_2.edf"],
            r"own\.yaml: split: one subject is in two splits",
        ),
        (
            {"split": "folder"},
            ["eval/a.edf"],
            r"own\.yaml: splits: folder of eval/a\.edf is 'eval', which is not listed",
        ),
        ({"table": {"file": "t.csv", "key": "id"}}, ["a.edf"], r"own\.yaml: table: .*t\.csv: the file is missing"),
        ({"files": "/*.edf"}, ["a.edf"], r"own\.yaml: files: '/\*\.edf' is no glob below"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, settings: dict[str, Any], names: list[str], message: str) -> None:
    touch(tmp_path, *names)
    with pytest.raises(DataSetError, match=message):
        own(**settings).find(tmp_path)


def test_tables_that_do_not_fit(tmp_path: Path) -> None:
    touch(tmp_path, "a.edf")
    for text, message in [
        ("", "the file is empty"),
        ("id,x\na\n", "line 2 has 1 values under 2 columns"),
        ("who,x\na,1\n", "no column 'id'; found who, x"),
        ("id,x\na,1\na,2\n", "id of t.csv is not unique"),
        ("id,x\nb,1\n", r"t\.csv has no row for stem 'a' \(a\.edf\); add it, or leave the file out with exclude"),
    ]:
        (tmp_path / "t.csv").write_text(text)
        with pytest.raises(DataSetError, match=message):
            own(table={"file": "t.csv", "key": "id", "match": "stem"}).find(tmp_path)


def test_files_are_left_out_by_exclude_and_null(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "a_1.edf", "b_1.edf", "b_2.edf", "old/c_1.edf")
    data_set = own(exclude="old/*", label="suffix", labels={1: "rest", 2: None})
    with caplog.at_level("INFO"):
        assert [source.recording for source in data_set.find(tmp_path)] == ["a_1.edf", "b_1.edf"]
    assert "own: 1 recordings left out: labels: 2: null" in caplog.text


def recording(duration_s: float = 20, annotations: tuple[Annotation, ...] = ()) -> Recording:
    signal = np.random.default_rng(0).normal(0, 10, (2, round(duration_s * 200)))
    return Recording(signal, 200, ("FP1", "CZ"), annotations)


SOURCE = SourceFile(Path("a.edf"), "a.edf", "a")


@pytest.mark.parametrize(
    ("windows", "starts"),
    [
        ({"length_s": 4}, [0, 4, 8, 12, 16]),
        ({"length_s": 4, "stride_s": 6}, [0, 6, 12]),
        ({"length_s": 4, "start_s": 1.5, "stop_s": 10}, [1.5, 5.5]),
        ({"length_s": 4, "stride_s": 2, "last_s": 8}, [12, 14, 16]),
        ({}, [0]),
        ({"start_s": 2, "stop_s": 9.5}, [2]),
    ],
)
def test_windows_of_a_file(windows: dict[str, Any], starts: list[float]) -> None:
    found, dropped = own(windows=windows).windows(SOURCE, recording())
    assert [window.start_s for window in found] == starts
    assert not dropped
    if "length_s" not in windows:
        assert found[0].signal.shape[1] == (20 if not windows else 7) * 200


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        ({"length_s": 30}, "a.edf: 20 s to use, shorter than a window of 30 s"),
        ({"length_s": 4, "last_s": 21}, "a.edf: 20 s long, but the last 21 s are needed"),
        ({"length_s": 4, "stop_s": 21}, "a.edf: 20 s long, but windows go until 21 s"),
        ({"length_s": 4, "start_s": 30}, "a.edf: 0 s to use"),
    ],
)
def test_recordings_that_are_too_short(windows: dict[str, Any], message: str) -> None:
    with pytest.raises(RecordingError, match=message):
        own(windows=windows).windows(SOURCE, recording())


EVENTS = (
    Annotation(0, 5, "a"),
    Annotation(5, 9, "b"),
    Annotation(14, 3, "a"),
    Annotation(18, 5, "b"),
    Annotation(19, 0, "c"),
)


@pytest.mark.parametrize(
    ("windows", "starts", "reasons"),
    [
        ({"length_s": 4}, [0, 5, 14], {"event's window beyond the recording": 1, "event that labels does not list": 1}),
        (
            {"length_s": 4, "offset_s": -1},
            [4, 13],
            {"event's window beyond the recording": 2, "event that labels does not list": 1},
        ),
        (
            {"length_s": 4, "stride_s": 2},
            [0, 5, 7, 9],
            {
                "event shorter than a window": 1,
                "event's window beyond the recording": 1,
                "event that labels does not list": 1,
            },
        ),
        ({}, [0, 5, 14], {"event's window beyond the recording": 1, "event that labels does not list": 1}),
    ],
)
def test_windows_around_events(windows: dict[str, Any], starts: list[float], reasons: dict[str, int]) -> None:
    data_set = own(label="event", labels={"a": "A", "b": "B"}, windows=windows | {"around": "events"})
    found, dropped = data_set.windows(SOURCE, recording(annotations=EVENTS))
    assert [window.start_s for window in found] == starts
    assert found[0].label == ("A" if starts[0] == 0 else "B")
    assert dropped == reasons


def test_windows_around_events_with_the_files_label(tmp_path: Path) -> None:
    data_set = own(windows={"length_s": 2, "around": "events", "events": ["a"]}, label="folder", labels=["x"])
    source = SourceFile(Path("a.edf"), "a.edf", "a", "x")
    found, dropped = data_set.windows(source, recording(annotations=EVENTS))
    assert [(window.start_s, window.label) for window in found] == [(0, "x"), (14, "x")]
    assert dropped == {"event that windows.events does not list": 3}


@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 1000), ("points", 200)])
def test_events_from_a_table_beside_the_recording(tmp_path: Path, unit: str, factor: float) -> None:
    write_edf(tmp_path / "S1.edf", ["Fp1", "Cz"], duration_s=20)
    rows = [f"{onset * factor:g},{3 * factor:g},{stage}" for onset, stage in [(1, "W"), (4, "N1"), (10, "?")]]
    (tmp_path / "S1_scoring.txt").write_text("\n".join(["Start, Length, Stage", *rows]))
    data_set = own(
        windows={"length_s": 3, "around": "events"},
        events={"file": "{stem}_scoring.txt", "onset": "Start", "duration": "Length", "text": "Stage", "unit": unit},
        label="event",
        labels=["W", "N1"],
    )
    (source,) = data_set.find(tmp_path)
    assert source.beside == (tmp_path / "S1_scoring.txt",)
    found, dropped = data_set.windows(source, data_set.read(source))
    assert [(window.start_s, window.label) for window in found] == [(1, "W"), (4, "N1")]
    assert dropped == {"event that labels does not list": 1}


def test_broken_tables_of_events_do_not_name_a_second_file(tmp_path: Path) -> None:
    write_edf(tmp_path / "S1.edf", ["Fp1", "Cz"], duration_s=20)
    data_set = own(
        windows={"length_s": 3, "around": "events"},
        events={"file": "{stem}_events.tsv"},
        label="event",
        labels=["W"],
    )
    (source,) = data_set.find(tmp_path)
    for text, message in [
        (None, "the file is missing"),
        ("onset\n1\n", "no column 'trial_type'; found onset"),
        ("onset\ttrial_type\nlate\tW\n", "an onset or duration is no number"),
    ]:
        if text is not None:
            (tmp_path / "S1_events.tsv").write_text(text)
        with pytest.raises(RecordingError) as caught:
            data_set.read(source)
        assert str(caught.value) == f"{source.path}: its table of events: {message}"
    with pytest.raises(DataSetError, match=r"own\.yaml: events\.file: 'who' is unknown; known: path"):
        own(windows={"length_s": 3, "around": "events"}, events={"file": "{who}.tsv"}).find(tmp_path)


def test_a_recording_from_elsewhere_needs_no_events(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "new.edf", ["Fp1", "Cz"])
    data_set = own(
        windows={"length_s": 3, "around": "events"},
        events={"file": "{stem}_events.tsv"},
        label="event",
        labels=["W"],
        reference="average",
    )
    recording = data_set.read_alone(path)
    np.testing.assert_allclose(recording.signal.sum(axis=0), 0, atol=1e-9)


def test_references(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "a.edf", ["EEG Fp1", "EEG Cz", "EEG M1", "EEG M2"])
    source = SourceFile(path, "a.edf", "a")
    plain = own().read(source)
    rows = dict(zip(plain.channels, plain.signal, strict=True))
    average = own(reference="average").read(source)
    np.testing.assert_allclose(average.signal[1], rows["CZ"] - plain.signal.mean(axis=0))
    np.testing.assert_allclose(average.signal.sum(axis=0), 0, atol=1e-9)
    for settings in ({}, {"channels": ["Fp1", "Cz"]}, {"channels": {"EEG Fp1": "FP1", "EEG Cz": "CZ"}}):
        ears = own(reference=["M1", "M2"], **settings).read(source)
        assert ears.channels == ("FP1", "CZ")
        np.testing.assert_allclose(ears.signal[0], rows["FP1"] - (rows["M1"] + rows["M2"]) / 2)
    vertex = own(reference="Cz", drop=["M1"]).read(source)
    assert vertex.channels == ("FP1", "M2")
    with pytest.raises(RecordingError, match=r"a\.edf: reference: A1 is not in the recording"):
        own(reference="A1").read(source)
    pairs = write_edf(tmp_path / "b.edf", ["Fp1-F7", "Cz"])
    with pytest.raises(RecordingError, match=r"b\.edf: reference: FP1-F7 are bipolar"):
        own(reference="average").read(SourceFile(pairs, "b.edf", "b"))


def test_array_files(tmp_path: Path) -> None:
    signal = np.random.default_rng(0).normal(0, 1e-5, (2000, 2))
    np.savez(tmp_path / "S1.npz", x=signal)
    arrays = {"sampling_rate_hz": 250, "unit": "V", "channels": ["Fp1", "Cz"]}
    data_set = own(files="*.npz", arrays=arrays)
    (source,) = data_set.find(tmp_path)
    found = data_set.read(source)
    np.testing.assert_allclose(found.signal, signal.T * 1e6)
    assert len(windows_of(data_set, source)) == 2


def test_from_files_to_a_store(tmp_path: Path) -> None:
    for person in range(3):
        for state in ("open", "closed"):
            write_edf(tmp_path / state / f"P{person}.edf", ["Fp1", "Cz", "EOG"], duration_s=20, seed=person)
    write_edf(tmp_path / "open" / "P3.edf", ["Fp1", "Cz", "Resp"], duration_s=20)
    declaration = own(label="folder", labels=["open", "closed"], drop=["EOG"]).declaration
    sets = {"eyes": {"layout": "folder", "declaration": declaration}}
    config = build(DataConfig, {"root": tmp_path, "sets": sets}, source="test")
    plans = plan_downstream(config, tmp_path / "store")
    manifest = write_store(pickle.loads(pickle.dumps(plans)), tmp_path / "store", run_locally)
    assert manifest.counts["num_recordings"] == 6
    assert manifest.counts["num_subjects"] == 3
    assert manifest.windows_by_label == {"eyes": {"open": 15, "closed": 15}}
    assert manifest.channels_left_out == {"not in the vocabulary": 6}
    (reason,) = manifest.quarantined.values()
    assert "'Resp' is not in the electrode vocabulary" in reason
    assert "P3" not in reason


def test_the_example_of_the_readme(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    example, config = (block for block in blocks if "clinic" in block)
    (tmp_path / "clinic.yaml").write_text(example)
    (tmp_path / "preprocess.yaml").write_text(config)
    names = [*yaml.safe_load(example)["channels"], "ECG 1", "A1", "A2"]
    for person in ("P001", "P002", "P003"):
        for state in ("open", "closed", "test"):
            write_edf(tmp_path / "clinic" / f"{person}_{state}.edf", names, duration_s=40)
    (tmp_path / "clinic" / "people.csv").write_text("id,diagnosis\nP001,G40\nP002,none\nP003,unknown\n")
    step = load(Step, tmp_path / "preprocess.yaml", {"data.root": tmp_path, "data.split.counts": [2, 0, 0]})
    manifest = write_store(plan_downstream(step.data, tmp_path / "store"), tmp_path / "store", run_locally)
    assert manifest.windows_by_label == {"clinic": {"epilepsy": 6, "healthy": 6}}
    assert manifest.channels_left_out == {"not in the vocabulary": 4, "A1": 4, "A2": 4}
