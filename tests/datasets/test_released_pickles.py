import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from neurolm.datasets import LAYOUTS
from neurolm.datasets.assignment import assign
from neurolm.datasets.dataset import DataSetError, SourceFile
from neurolm.datasets.ingest import DataConfig, DataSetConfig, plan_downstream, run_locally, write_store
from neurolm.datasets.released_pickles import read_sample
from neurolm.datasets.splits import SplitConfig, SplitError
from neurolm.eeg.recording import RecordingError
from neurolm.eeg.shards import Store
from tests.datasets.miniatures import noise, sample
from tests.eeg.edf import write_edf

TUAB, TUEV, TUEG = (LAYOUTS[f"{name}_pickles"] for name in ("tuab", "tuev", "tueg"))


class Attack:
    """What an evil pickle holds: anything that is called while it is read."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_code_in_a_pickle_is_refused_and_not_run(protocol: int, tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "a.pkl"
    for attack in (Attack(os.mkdir, str(victim)), Attack(eval, f"__import__('os').mkdir({str(victim)!r})")):
        path.write_bytes(pickle.dumps({"X": attack, "y": 1}, protocol=protocol))
        with pytest.raises(RecordingError, match=r"a\.pkl: refused .* which no sample needs"):
            read_sample(path)
        assert not victim.exists()


@pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_numbers_and_containers_are_restored(protocol: int, tmp_path: Path) -> None:
    content = {"X": noise(2, 5), "ch_names": ["C3", "C4"], "y": np.array([1.0]), "n": np.float32(2), "t": (1, None)}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    found = read_sample(tmp_path / "a.pkl")
    np.testing.assert_array_equal(found.pop("X"), content.pop("X"))
    assert found == content


@given(st.binary(max_size=60))
@example(b"\x95" + (2**56).to_bytes(8, "little"))  # a frame of so many bytes
@example(b"\x96" + (2**56).to_bytes(8, "little"))  # a byte array
def test_bytes_that_are_no_pickle_are_refused(content: bytes) -> None:
    path = Path(os.environ["NEUROLM_HOME"]) / "a.pkl"
    path.write_bytes(content)
    try:
        assert isinstance(read_sample(path), dict)
    except RecordingError as error:
        assert "a.pkl" in str(error)


def test_samples_become_windows_as_they_are(tmp_path: Path) -> None:
    samples = [noise(23, 2000) * (number + 1) for number in range(3)]
    for number, signal in zip((0, 2, 10), samples, strict=True):
        sample(tmp_path / f"train/aaaaaaaa_s001_t000_{number}.pkl", {"X": signal, "y": 1})
    (source,) = TUAB.find(tmp_path)
    assert (source.recording, source.subject, source.part) == ("train/aaaaaaaa_s001_t000", "aaaaaaaa", "0,2,10")
    recording = TUAB.read(source)
    assert recording.is_preprocessed
    windows, dropped = TUAB.windows(source, recording)
    assert not dropped
    assert [window.start_s for window in windows] == [0, 10, 20]
    for window, signal in zip(windows, samples, strict=True):
        np.testing.assert_array_equal(window.signal, signal.astype(np.float32))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"X": noise(22, 2000), "y": 1}, r"signal of shape \(22, 2000\), 23 channels"),
        ({"X": noise(23, 2000), "y": 2}, "label 2; expected 0 to 1 for normal, abnormal"),
        ({"X": noise(23, 2000)}, "no numbers under y or label; found X"),
        ({"X": "signal", "y": 1}, "no numbers under X or signal or data"),
        ({"X": noise(23, 2000) * 1e-6, "y": 1}, "is no EEG"),
        ({"X": noise(1, 2000), "y": 1, "ch_names": ["ROC"]}, "not in the electrode vocabulary"),
        ([1, 2], "holds a list"),
    ],
)
def test_wrong_samples_say_what_is_wrong(content: Any, words: str, tmp_path: Path) -> None:
    sample(tmp_path / "train/aaaaaaaa_s001_t000_0.pkl", content)
    (source,) = TUAB.find(tmp_path)
    with pytest.raises(ValueError, match=words):
        TUAB.read(source)


def test_a_recording_of_the_set_itself_is_read_as_one(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "Subject01_2.edf", LAYOUTS["workload"].channels, duration_s=5)
    layout = LAYOUTS["workload_pickles"]
    recording = layout.read(SourceFile(path, path.name, "unknown"))
    assert (len(recording.channels), recording.is_preprocessed) == (19, False)
    assert layout.window_s == LAYOUTS["workload"].window_s == 4  # type: ignore[attr-defined]


def test_a_recording_in_two_folders_is_refused(tmp_path: Path) -> None:
    for folder in ("train", "test"):
        sample(tmp_path / folder / "aaaaaaaa_s001_t000_0.pkl", {"X": noise(23, 2000), "y": 1})
    with pytest.raises(DataSetError, match=r"aaaaaaaa_s001_t000 has samples in .*test and .*train"):
        TUAB.find(tmp_path)


def test_folders_are_the_released_split(tmp_path: Path) -> None:
    for folder, name in (("train", "aaaaaaaa"), ("val", "aaaaaaab"), ("test", "aaaaaaac")):
        sample(tmp_path / folder / f"{name}_s001_t000_0.pkl", {"X": noise(23, 2000), "y": 1})
    assignment = assign(TUAB, TUAB.find(tmp_path), SplitConfig(rule="released"))
    assert {source.subject: split for source, split in assignment} == {
        "aaaaaaaa": "train", "aaaaaaab": "val", "aaaaaaac": "test",
    }  # fmt: skip
    sample(tmp_path / "more/aaaaaaad_s001_t000_0.pkl", {"X": noise(23, 2000), "y": 1})
    with pytest.raises(SplitError, match="in none of the folders train, val, eval, test"):
        TUAB.released_split(TUAB.find(tmp_path))


def test_a_folder_of_pickles_becomes_a_store(tmp_path: Path) -> None:
    for folder, name, code in (
        ("train", "aaaaaaar_00000001", 1),
        ("eval", "aaaaaaas_00000001", 6),
        ("test", "bckg_000_a_", 3),
    ):
        for number in range(2):
            content = {"signal": noise(23, 1000), "offending_channel": np.array([1.0]), "label": np.array([code])}
            sample(tmp_path / f"in/processed/processed_{folder}/{name}-{number}.pkl", content)
    sample(tmp_path / "in/processed/processed_train/aaaaaaat_00000001-0.pkl", Attack(print, "x"))
    config = DataConfig(
        root=tmp_path / "in",
        sets={"tuev": DataSetConfig(layout="tuev_pickles", folder=Path("processed"))},
        split=SplitConfig(rule="released"),
    )
    store = tmp_path / "out/store"
    manifest = write_store(plan_downstream(config, store), store, run_locally)
    assert manifest.windows_by_split == {"train": 2, "val": 2, "test": 2}
    assert manifest.windows_by_label == {"tuev": {"spsw": 2, "bckg": 2, "pled": 2}}
    assert len(manifest.quarantined) == 1
    assert "which no sample needs" in next(iter(manifest.quarantined.values()))
    assert manifest.published_counts["tuev"]["differences"] == ["6 windows came out, 112491 are published"]
    opened = Store.open(store)
    window = opened.read(opened.index("val").rows[:1])[0]
    np.testing.assert_array_equal(window.signal, noise(23, 1000).astype(np.float32))
