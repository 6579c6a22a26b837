import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurolm.config import build
from neurolm.datasets.bids import BidsDataSet
from neurolm.datasets.dataset import DataSetError
from neurolm.datasets.declaration import Declaration
from neurolm.datasets.ingest import DataConfig, plan_downstream, run_locally, write_store
from neurolm.eeg.recording import RecordingError
from tests.eeg.edf import write_edf

mne_bids = pytest.importorskip("mne_bids", reason="mne-bids is not installed")


def own(**settings: Any) -> BidsDataSet:
    values = {"name": "own", "bids": {}, "mains_hz": 60, "windows": {"length_s": 4}, "file": "own.yaml"} | settings
    data_set = BidsDataSet.of(build(Declaration, values, source="own.yaml"))
    assert isinstance(data_set, BidsDataSet)
    return data_set


FISTS = {
    "label": "event",
    "labels": {"TASK2T1": "left fist", "TASK2T2": "right fist", "TASK2T0": None},
    "events": {"text": "value"},
    "windows": {"length_s": 4, "around": "events"},
}


def test_accounting_of_a_real_set_by_events(test_data: Path, tmp_path: Path) -> None:
    data_set = own(bids={"tasks": ["motion"]}, **FISTS)
    root = test_data / "bids" / "eegmmidb_ds004362_edf"
    assert [(source.subject, Path(source.recording).name) for source in data_set.find(root)] == [
        ("001", "sub-001_task-motion_run-1_eeg.edf"),
        ("001", "sub-001_task-motion_run-4_eeg.edf"),
        ("015", "sub-015_task-motion_run-1_eeg.edf"),
    ]
    config = build(
        DataConfig,
        {
            "root": root,
            "sets": {"fists": {"layout": "bids", "declaration": data_set.declaration}},
            "split": {"counts": [2, 0, 0]},
        },
        source="test",
    )
    manifest = write_store(plan_downstream(config, tmp_path / "store"), tmp_path / "store", run_locally)
    assert [manifest.counts[name] for name in ("num_sources", "num_recordings", "num_subjects")] == [3, 1, 1]
    assert manifest.windows_by_label == {"fists": {"left fist": 8, "right fist": 7}}
    # Two baseline runs have one event each that is no label; 15 rests are left out: 32 events in all.
    assert manifest.dropped == {"event that labels does not list": 2, "event left out by labels": 15}
    reason = "RecordingError: no window of it can be stored (event that labels does not list: 1)"
    assert list(manifest.quarantined.values()) == [reason, reason]


def test_signals_are_those_of_mne_bids(test_data: Path) -> None:
    root = test_data / "bids" / "eegmmidb_ds004362_edf"
    data_set = own(bids={"runs": [4]}, **FISTS)
    (source,) = data_set.find(root)
    place = mne_bids.BIDSPath(root=root, subject="001", task="motion", run="4", datatype="eeg")
    raw = mne_bids.read_raw_bids(place, on_ch_mismatch="rename", verbose="ERROR")
    recording = data_set.read(source)
    assert recording.channels == tuple(name.upper() for name in raw.ch_names)
    np.testing.assert_allclose(recording.signal, raw.get_data() * 1e6)
    assert [(mark.onset_s, mark.description) for mark in recording.annotations] == list(
        zip(raw.annotations.onset, raw.annotations.description, strict=True)
    )


def test_labels_and_splits_from_participants(test_data: Path) -> None:
    root = test_data / "bids" / "eegmmidb_ds004362_edf"
    settings = {"label": "Handedness", "labels": {"R": "right", "L": "left"}, "bids": {"runs": ["01"]}}
    data_set = own(split="Age", splits={"49": "train", "47": "test"}, **settings)
    assert [(source.subject, source.label, source.split) for source in data_set.find(root)] == [
        ("001", "right", "train"), ("015", "right", "test"),
    ]  # fmt: skip
    windows, _ = data_set.windows(source := data_set.find(root)[0], data_set.read(source))
    assert Counter(window.label for window in windows) == {"right": 15}
    with pytest.raises(DataSetError, match=r"own\.yaml: label: .* has no 'Hand'; known of it: participant_id, Gender"):
        own(label="Hand", labels=["R"]).find(root)


def test_a_real_set_whose_sidecar_does_not_fit_is_quarantined(test_data: Path, tmp_path: Path) -> None:
    root = test_data / "bids" / "bids_eeglab_test"
    data_set = own(label="Gender", labels={"M": "male", "F": "female"}, mains_hz=None)
    (source,) = data_set.find(root)
    assert (source.subject, source.label) == ("S1", "male")
    with pytest.raises(RecordingError, match="has 16 channels, but its sidecar names 15"):
        data_set.read(source)
    with pytest.raises(RecordingError, match="constant within every second"):
        own(bids={"names": "file"}).read(source)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two subjects, one with sessions' sidecars at the top (BIDS' inheritance)."""
    (tmp_path / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.8.0"}))
    for subject, session in (("01", "a"), ("01", "b"), ("02", "a")):
        name = f"sub-{subject}_ses-{session}_task-rest"
        folder = tmp_path / f"sub-{subject}" / f"ses-{session}" / "eeg"
        write_edf(folder / f"{name}_eeg.edf", ["1", "2"], duration_s=20)
        (folder / f"{name}_channels.tsv").write_text("name\ttype\tunits\nFp1\tEEG\tuV\nCz\tEEG\tuV\n")
    (tmp_path / "task-rest_eeg.json").write_text('{"PowerLineFrequency": 60}')
    (tmp_path / "task-rest_events.tsv").write_text("onset\tduration\ttrial_type\n2\t4\tlook\n8\tn/a\tlook\n")
    return tmp_path


def test_sidecars_are_inherited(root: Path) -> None:
    data_set = own(label="event", labels=["look"], windows={"length_s": 4, "around": "events"}, bids={"sessions": "a"})
    sources = data_set.find(root)
    assert [source.subject for source in sources] == ["01", "02"]
    assert root / "task-rest_events.tsv" in sources[0].beside
    recording = data_set.read(sources[1])
    assert recording.channels == ("FP1", "CZ")
    windows, _ = data_set.windows(sources[1], recording)
    assert [window.start_s for window in windows] == [2, 8]


def test_a_recording_from_elsewhere_needs_no_bids_name(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "new.edf", ["Fp1", "Cz"])
    assert own().read_alone(path).channels == ("FP1", "CZ")


def test_what_does_not_fit(root: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="its sidecar says mains_hz 60, the declaration 50"):
        own(mains_hz=50).read(own().find(root)[0])
    (root / "task-rest_events.tsv").unlink()
    data_set = own(label="event", labels=["look"], windows={"length_s": 4, "around": "events"})
    with pytest.raises(RecordingError, match=r"has no events\.tsv"):
        data_set.read(data_set.find(root)[0])
    with pytest.raises(DataSetError, match="no recording of own found"):
        own(bids={"tasks": "sleep"}).find(root)
    (root / "dataset_description.json").unlink()
    with pytest.raises(DataSetError, match=r"no BIDS folder: dataset_description\.json is missing"):
        own().find(root)


def test_mne_bids_is_imported_only_when_it_is_needed() -> None:
    code = "import sys, neurolm.datasets.ingest; sys.exit('mne_bids' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
