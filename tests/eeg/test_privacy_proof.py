import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neurolm.eeg.fingerprint import Fingerprint
from neurolm.eeg.fingerprint_files import DIGEST, RecordingFingerprint, write_fingerprints
from neurolm.eeg.privacy_proof import PrivacyError, prove_private
from neurolm.eeg.shards import Manifest, ShardWriter, StoredWindow, write_manifest

NAMES = ("Ada", "Muster", "1970-05-03")
SUBJECT, RECORDING = "ada0123456789abc", "0123456789abcdef"


def make_store(folder: Path, *, name: str = "hospital", **changes: Any) -> Path:
    """A store of one window, whose texts the changes replace."""
    values: dict[str, Any] = {"data_set": name, "subject": SUBJECT, "recording": RECORDING, "start_s": 0.0}
    window = StoredWindow(np.ones((1, 400), np.float32), [0], label="rest", **{**values, **changes})
    shard = folder / f"train-{name}-00000.parquet"
    with ShardWriter(shard) as writer:
        writer.write([window])
    nothing = Fingerprint(np.empty(0, np.uint32), np.empty(0, np.uint32))
    member = RecordingFingerprint(window.data_set, window.subject, window.recording, nothing)
    file = {"name": shard.name, "split": "train", "num_windows": 1, DIGEST: write_fingerprints(shard, [member])}
    write_manifest(folder, Manifest(data_digest="ada" * 10, files=[file], counts={"num_windows": 1}))
    return folder


def edit_manifest(store: Path, **values: Any) -> None:
    path = store / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_store_of_ids_names_nobody(tmp_path: Path) -> None:
    prove_private(make_store(tmp_path), NAMES)  # "ada" stands in digits only
    prove_private(tmp_path)


@pytest.mark.parametrize("changes", [{"subject": "Ada Muster"}, {"recording": "0123"}, {"subject": SUBJECT.upper()}])
def test_subjects_and_recordings_are_digits(tmp_path: Path, changes: dict[str, str]) -> None:
    with pytest.raises(PrivacyError, match=r"column (subject|recording): 1 values are no keyed ids of 16"):
        prove_private(make_store(tmp_path, **changes))


@pytest.mark.parametrize(
    ("label", "data_set", "place"),
    [("seizure of Ada", "a", "column label"), ("rest", "mustermann", "column data_set")],
)
def test_texts_in_columns_are_found_in_any_case(tmp_path: Path, label: str, data_set: str, place: str) -> None:
    with ShardWriter(tmp_path / "train-a-00000.parquet") as writer:
        writer.write([StoredWindow(np.ones((1, 400), np.float32), [0], data_set, SUBJECT, RECORDING, 0.0, label)])
    with pytest.raises(PrivacyError, match=place) as caught:
        prove_private(tmp_path, NAMES)
    assert "ada" not in str(caught.value).casefold() and "muster" not in str(caught.value).casefold()


@pytest.mark.parametrize(
    "values",
    [
        {"quarantined": {"0" * 16: "RecordingError: file of ada muster"}},
        {"dropped": {"born 1970-05-03": 3}},
        {"windows_by_label": {"hospital": {"ADA": 1}}},
    ],
)
def test_texts_in_the_manifest_are_found(tmp_path: Path, values: dict[str, Any]) -> None:
    edit_manifest(make_store(tmp_path), **values)
    with pytest.raises(PrivacyError, match=r"manifest\.json: identifying text \d is in the manifest"):
        prove_private(tmp_path, NAMES)


def test_a_quarantined_name_is_no_id(tmp_path: Path) -> None:
    edit_manifest(make_store(tmp_path), quarantined={"ada.edf": "broken"})
    with pytest.raises(PrivacyError, match="quarantined recordings: 1 values are no keyed ids"):
        prove_private(tmp_path)


def test_metadata_column_names_file_names_and_other_files_are_searched(tmp_path: Path) -> None:
    table = pa.table({"x": [1]}).replace_schema_metadata({"patient": "Muster"})
    pq.write_table(table, tmp_path / "a.parquet")
    pq.write_table(pa.table({"muster": [1]}), tmp_path / "b.parquet")
    (tmp_path / "of-muster.txt").write_text("")
    (tmp_path / "notes.bin").write_bytes(b"\0" * 9 + "Muster".encode("utf-16-le"))
    with pytest.raises(PrivacyError) as caught:
        prove_private(tmp_path, NAMES)
    said = str(caught.value)
    assert "a.parquet: identifying text 1 is in metadata" in said
    assert "b.parquet: identifying text 1 is in column names" in said
    assert "a file: identifying text 1 is in the file's name" in said
    assert "notes.bin: identifying text 1 is in its bytes" in said


def test_what_is_too_short_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"texts \[1\] are shorter"):
        prove_private(make_store(tmp_path), ["Ada", "A"])
