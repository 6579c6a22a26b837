import hashlib
import json
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neurolm.eeg.privacy import home
from neurolm.eeg.shards import (
    Manifest,
    ManifestError,
    ManifestMissing,
    SealedSplitError,
    ShardWriter,
    Store,
    StoredWindow,
    TestOpening,
    combine_digests,
    open_test_split,
    split_of,
    window_digest,
    write_manifest,
)


def window(seed: int, num_channels: int = 3, num_times: int = 400, **changes: object) -> StoredWindow:
    rng = np.random.default_rng(seed)
    values: dict[str, object] = {
        "signal": rng.normal(0, 10, (num_channels, num_times)).astype(np.float32),
        "channel_indices": np.sort(rng.choice(139, num_channels, replace=False)).astype(np.int16),
        "data_set": "workload",
        "subject": f"subject{seed % 5}",
        "recording": f"recording{seed % 7}",
        "start_s": 2.0 * seed,
        "label": ["rest", "arithmetic", None][seed % 3],
    }
    return StoredWindow(**(values | changes))  # type: ignore[arg-type]


def write_store(folder: Path, shards: dict[str, Sequence[StoredWindow]], row_group_bytes: int = 10_000) -> Path:
    files = []
    for name, windows in shards.items():
        with ShardWriter(folder / name, row_group_bytes) as writer:
            writer.write(windows)
        sha256 = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        files.append({"name": name, "split": split_of(name), "num_windows": len(windows), "sha256": sha256})
    digests = [window_digest(item, split_of(name)) for name, windows in shards.items() for item in windows]
    write_manifest(folder, Manifest(data_digest=combine_digests(digests), files=files, counts={}))
    return folder


@pytest.fixture
def shards() -> dict[str, Sequence[StoredWindow]]:
    return {
        "val-a-00000.parquet": [window(seed) for seed in range(20, 26)],
        "train-a-00000.parquet": [window(seed) for seed in range(12)],
        "train-b-00000.parquet": [window(seed, 2, 600, data_set="hmc") for seed in range(12, 20)],
        "train-c-00000.parquet": [],
        "test-a-00000.parquet": [window(seed) for seed in range(26, 30)],
    }


def assert_same(found: StoredWindow, expected: StoredWindow) -> None:
    assert (found.quality is None) == (expected.quality is None)
    if found.quality is not None:
        np.testing.assert_array_equal(found.quality, expected.quality)
        assert found.quality.dtype == np.uint8
    np.testing.assert_array_equal(found.signal, expected.signal)
    assert found.signal.dtype == np.float32
    np.testing.assert_array_equal(found.channel_indices, expected.channel_indices)
    for name in ("data_set", "subject", "recording", "start_s", "label"):
        assert getattr(found, name) == getattr(expected, name)


def test_index_and_read_give_back_what_was_written(tmp_path: Path, shards: dict[str, Sequence[StoredWindow]]) -> None:
    store = Store.open(write_store(tmp_path, shards))
    index = store.index("train")
    expected = [item for name in sorted(shards) if name.startswith("train") for item in shards[name]]
    assert len(index) == 20
    assert len(store) == 30
    assert list(index.rows) == list(range(4, 24))  # after the four rows of test-a
    for name in ("data_set", "label", "subject", "recording", "start_s"):
        assert list(getattr(index, name)) == [getattr(item, name) for item in expected]
    assert list(zip(index.num_channels, index.num_times, strict=True)) == [item.signal.shape for item in expected]
    assert index.classes() == ("arithmetic", "rest")
    order = np.random.default_rng(0).permutation(20)
    for found, place in zip(store.read(index.rows[order]), order, strict=True):
        assert_same(found, expected[place])
        assert found.row == index.rows[place]


def test_row_groups_are_numbered_over_the_store(tmp_path: Path, shards: dict[str, Sequence[StoredWindow]]) -> None:
    store = Store.open(write_store(tmp_path, shards))  # 3 windows of 4,800 bytes fill a row group
    # The last one takes the rest: test-a has one of 4 windows, train-b one of 3 and one of 5.
    assert list(store.index("train").row_groups) == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6, 6, 6]
    assert list(store.index("val").row_groups) == [7, 7, 7, 8, 8, 8]


def test_index_of_chosen_data_sets_and_take(tmp_path: Path, shards: dict[str, Sequence[StoredWindow]]) -> None:
    store = Store.open(write_store(tmp_path, shards))
    hmc = store.index("train", ["hmc"])
    assert list(hmc.data_set) == ["hmc"] * 8
    assert list(hmc.take(hmc.label == "rest").label) == ["rest"] * 3
    assert len(store.index("train", [])) == 0
    assert len(store.index("train", ["nothing"])) == 0


def test_windows_that_are_read_belong_to_the_reader(tmp_path: Path, shards: dict[str, Sequence[StoredWindow]]) -> None:
    store = Store.open(write_store(tmp_path, shards))
    first = store.read([4])[0]
    first.signal[:] = 0
    assert store.read([4])[0].signal.std() > 1


def test_cache_keeps_to_its_budget(tmp_path: Path, shards: dict[str, Sequence[StoredWindow]]) -> None:
    store = Store.open(write_store(tmp_path, shards), cache_bytes=30_000)
    rows = store.index("train").rows
    for _ in range(2):
        store.read(rows)
        assert 0 < sum(table.nbytes for table in store._cache.values()) <= 30_000
    assert len(pickle.loads(pickle.dumps(store))._cache) == 0


def test_rows_outside_the_store(tmp_path: Path, shards: dict[str, Sequence[StoredWindow]]) -> None:
    store = Store.open(write_store(tmp_path, shards))
    for rows in ([30], [-1]):
        with pytest.raises(IndexError, match="30 windows"):
            store.read(rows)
    assert store.read([]) == []


def test_parquet_alone_can_read_a_shard(tmp_path: Path) -> None:
    write_store(tmp_path, {"train-a.parquet": [window(1)]})
    row = pq.read_table(tmp_path / "train-a.parquet").to_pylist()[0]
    assert row["quality"] is None
    signal = np.array(row["signal"], dtype=np.float32).reshape(-1, row["num_times"])
    np.testing.assert_array_equal(signal, window(1).signal)
    assert row["window_digest"] == window_digest(window(1), "train")


def test_the_five_lines_of_the_readme(tmp_path: Path) -> None:
    write_store(tmp_path, {"train-a.parquet": [window(1), window(2)]})
    table = pq.read_table(tmp_path / "train-a.parquet")
    row = table.slice(0, 1)
    signal = row["signal"].combine_chunks().flatten().to_numpy().reshape(-1, row["num_times"][0].as_py())
    np.testing.assert_array_equal(signal, window(1).signal)
    assert row["split"][0].as_py() == "train"


def test_row_groups_are_full_and_the_last_takes_the_rest(tmp_path: Path) -> None:
    for number in (1, 2, 3, 5, 6, 7, 9):  # three windows fill a row group
        with ShardWriter(tmp_path / "train-a.parquet", 10_000) as writer:
            writer.write(window(seed) for seed in range(number))
        metadata = pq.read_metadata(tmp_path / "train-a.parquet")
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        assert sum(sizes) == number
        assert sizes == [number] if number < 6 else all(3 <= size < 6 for size in sizes)


def test_float16_is_kept_in_half_the_bytes_and_read_as_float32(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "train-a.parquet", signal_dtype="float16") as writer:
        writer.write([window(1)])
    rounded = window(1).signal.astype(np.float16)
    assert writer.digests == [window_digest(window(1, signal=rounded.astype(np.float32)), "train")]
    file = {"name": "train-a.parquet", "split": "train", "num_windows": 1, "sha256": ""}
    write_manifest(tmp_path, Manifest(data_digest="", files=[file], counts={}))
    store = Store.open(tmp_path)
    assert store.signal_dtype == "float16"
    (view,), (copy,) = store.views([0]), store.read([0])
    assert view.signal.dtype == np.float16
    assert copy.signal.dtype == np.float32
    np.testing.assert_array_equal(view.signal, rounded)
    np.testing.assert_array_equal(copy.signal, rounded)


def replace_shard(folder: Path, table: pa.Table) -> Path:
    """A store whose only shard was written by somebody else."""
    path = write_store(folder, {"train-a.parquet": [window(1)]})
    pq.write_table(table, path / "train-a.parquet")
    return path


def test_other_columns_are_refused(tmp_path: Path) -> None:
    write_store(tmp_path, {"train-a.parquet": [window(1)]})
    table = pq.read_table(tmp_path / "train-a.parquet")
    for changed in (table.drop_columns(["split"]), table.append_column("extra", [["x"]])):
        with pytest.raises(ManifestError, match=r"found the columns signal .*; expected signal .*make the store again"):
            Store.open(replace_shard(tmp_path, changed))


class Foreign(pa.ExtensionType):
    """A type of another library, which tells when it is loaded."""

    loaded = 0

    def __init__(self) -> None:
        super().__init__(pa.string(), "tests.foreign")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> "Foreign":
        Foreign.loaded += 1
        return cls()


def test_extension_types_are_refused_before_they_are_loaded(tmp_path: Path) -> None:
    write_store(tmp_path, {"train-a.parquet": [window(1)]})
    table = pq.read_table(tmp_path / "train-a.parquet")
    labels = pa.ExtensionArray.from_storage(Foreign(), table["label"].combine_chunks())
    path = replace_shard(tmp_path, table.set_column(table.schema.names.index("label"), "label", labels))
    pa.register_extension_type(Foreign())
    Foreign.loaded = 0
    try:
        with pytest.raises(ManifestError, match="extension type of another library"):
            Store.open(path)
        assert Foreign.loaded == 0
    finally:
        pa.unregister_extension_type("tests.foreign")


def test_room_for_row_groups(tmp_path: Path) -> None:
    store = Store.open(write_store(tmp_path, {"train-a.parquet": [window(seed) for seed in range(30)]}), cache_bytes=1)
    store.read(range(30))
    assert len(store._cache) == 1
    store.keep_row_groups(4)
    store.read(range(30))
    assert 3 <= len(store._cache) <= 5


def test_same_windows_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with ShardWriter(tmp_path / name / "train-a.parquet", 10_000) as writer:
            for seed in range(9):  # window by window or all at once makes no difference
                writer.write([window(seed)]) if name == "one" else None
            if name == "two":
                writer.write(window(seed) for seed in range(9))
    assert (tmp_path / "one/train-a.parquet").read_bytes() == (tmp_path / "two/train-a.parquet").read_bytes()


def test_failed_shard_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="boom"), ShardWriter(tmp_path / "train-a.parquet") as writer:
        writer.write([window(1)])
        raise RuntimeError("boom")
    assert list(tmp_path.iterdir()) == []


def test_shard_name_says_its_split(tmp_path: Path) -> None:
    assert split_of("x/val-workload-00003.parquet") == "val"
    with pytest.raises(ValueError, match="begins with its split"):
        ShardWriter(tmp_path / "workload.parquet")


def test_data_digest_knows_content_only(tmp_path: Path) -> None:
    windows = [window(seed) for seed in range(6)]
    renamed = [window(seed, subject="other", recording="other", start_s=0.0) for seed in reversed(range(6))]
    one = write_store(tmp_path / "one", {"train-a.parquet": windows})
    two = write_store(tmp_path / "two", {"train-y.parquet": renamed[:2], "train-x.parquet": renamed[2:]})
    assert Store.open(one).digest == Store.open(two).digest


@pytest.mark.parametrize(
    "changed",
    [
        {"label": "other"},
        {"label": None},
        {"data_set": "other"},
        {"channel_indices": np.array([1, 2, 3], dtype=np.int16)},
        {"signal": np.zeros((3, 400), np.float32)},
    ],
)
def test_window_digest_changes_with_what_is_learnt(changed: dict[str, object]) -> None:
    assert window_digest(window(1), "train") != window_digest(window(1, **changed), "train")
    assert window_digest(window(1), "train") != window_digest(window(1), "val")


def test_label_none_is_not_the_word_none() -> None:
    assert window_digest(window(1, label=None), "train") != window_digest(window(1, label="None"), "train")


def test_store_without_manifest_is_refused(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "train-a.parquet") as writer:
        writer.write([window(1)])
    with pytest.raises(ManifestMissing, match="holds shards but no manifest"):
        Store.open(tmp_path)
    with pytest.raises(ManifestMissing, match="does not exist"):
        Store.open(tmp_path / "nowhere")


def test_manifest_is_not_written_before_its_shards(tmp_path: Path) -> None:
    file = {"name": "train-a.parquet", "split": "train", "num_windows": 1, "sha256": ""}
    with pytest.raises(ManifestError, match=r"not there: train-a\.parquet"):
        write_manifest(tmp_path, Manifest(data_digest="", files=[file], counts={}))
    assert list(tmp_path.iterdir()) == []


def test_manifest_and_shards_must_agree(tmp_path: Path, shards: dict[str, Sequence[StoredWindow]]) -> None:
    write_store(tmp_path, shards)
    content = (tmp_path / "train-a-00000.parquet").read_bytes()
    with ShardWriter(tmp_path / "train-a-00000.parquet") as writer:
        writer.write([window(1)])
    with pytest.raises(ManifestError, match=r"train-a-00000\.parquet: 1 windows, the manifest says 12"):
        Store.open(tmp_path)
    (tmp_path / "train-a-00000.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(ManifestError, match=r"train-a-00000\.parquet: this shard cannot be read"):
        Store.open(tmp_path)
    (tmp_path / "train-a-00000.parquet").unlink()
    with pytest.raises(ManifestError, match=r"train-a-00000\.parquet"):
        Store.open(tmp_path)


def test_broken_or_foreign_manifest(tmp_path: Path, shards: dict[str, Sequence[StoredWindow]]) -> None:
    path = write_store(tmp_path, shards) / "manifest.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"schema_version": 99}))
    with pytest.raises(ManifestError, match="schema version 99"):
        Store.open(tmp_path)
    path.write_text("{")
    with pytest.raises(ManifestError, match="not valid JSON"):
        Store.open(tmp_path)


def test_test_split_is_sealed(tmp_path: Path, shards: dict[str, Sequence[StoredWindow]]) -> None:
    store = Store.open(write_store(tmp_path, shards))
    with pytest.raises(SealedSplitError, match="sealed"):
        store.index("test")
    for rows in ([0], [5, 3]):  # rows 0 to 3 are test-a
        with pytest.raises(SealedSplitError, match="sealed"):
            store.read(rows)


def test_test_split_renamed_in_the_manifest_stays_sealed(
    tmp_path: Path, shards: dict[str, Sequence[StoredWindow]]
) -> None:
    path = write_store(tmp_path, shards) / "manifest.json"
    path.write_text(path.read_text().replace('"split": "test"', '"split": "train"'))
    with pytest.raises(ManifestError, match="says split 'train'"):
        Store.open(tmp_path)


def test_opening_is_counted_and_belongs_to_its_data(
    tmp_path: Path, shards: dict[str, Sequence[StoredWindow]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEUROLM_GIT_COMMIT", "abc")
    digest = Store.open(write_store(tmp_path, shards)).digest
    assert open_test_split(digest, "evaluate").count == 1
    assert open_test_split("other data", "evaluate").count == 1
    opening = open_test_split(digest, "evaluate again")
    assert opening.count == 2
    store = Store.open(tmp_path, opening)
    assert [found.start_s for found in store.read(store.index("test").rows)] == [52, 54, 56, 58]
    assert len(pickle.loads(pickle.dumps(store)).index("test")) == 4
    entries = [json.loads(line) for line in (home() / "test_openings.jsonl").read_text().splitlines()]
    assert [entry["reason"] for entry in entries] == ["evaluate", "evaluate", "evaluate again"]
    assert entries[2]["data_digest"] == digest
    assert entries[2]["git_commit"] == "abc"
    with pytest.raises(SealedSplitError, match="other data"):
        Store.open(tmp_path, open_test_split("other data", "mistake"))


def test_opening_cannot_be_made_by_hand() -> None:
    with pytest.raises(TypeError, match="open_test_split"):
        TestOpening("digest", 1, None)


def test_quality_is_stored_beside_the_window_and_teaches_nothing(tmp_path: Path) -> None:
    judged = window(1, quality=np.array([0, 37, 255], dtype=np.uint8))
    store = Store.open(write_store(tmp_path, {"train-a.parquet": [window(0), judged, window(2)]}))
    for found, expected in zip(store.read([0, 1, 2]), [window(0), judged, window(2)], strict=True):
        assert_same(found, expected)
    assert pq.read_table(tmp_path / "train-a.parquet")["quality"].to_pylist() == [None, [0, 37, 255], None]
    assert window_digest(judged, "train") == window_digest(window(1), "train")
    with pytest.raises(ValueError, match="quality of 2 channels, the window has 3"):
        write_store(tmp_path / "b", {"train-a.parquet": [window(1, quality=np.zeros(2, dtype=np.uint8))]})


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shapes=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 50)), min_size=1, max_size=20),
    row_group_bytes=st.integers(1, 5000),
    names=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), min_size=20, max_size=20),
    value=st.floats(width=32),
)
def test_round_trip(
    tmp_path: Path, shapes: list[tuple[int, int]], row_group_bytes: int, names: list[str], value: float
) -> None:
    windows = [window(seed, *shape, label=names[seed], subject=names[-1 - seed]) for seed, shape in enumerate(shapes)]
    windows[0].signal[0, 0] = value  # also NaN and infinities survive
    store = Store.open(write_store(tmp_path, {"train-a.parquet": windows}, row_group_bytes))
    for found, expected in zip(store.read(store.index("train").rows), windows, strict=True):
        assert_same(found, expected)
