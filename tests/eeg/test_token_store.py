"""Token stores answer to the row numbers of their store, and to no other store's; the encoder here is numpy."""

import dataclasses
import json
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from neurolm.eeg.shards import SealedSplitError, Store, StoredWindow
from neurolm.eeg.token_shards import TokenOrigin, account, has_tokens, token_shards, write_token_shard
from neurolm.eeg.token_store import (
    TokenManifest,
    TokenMismatch,
    TokenStore,
    TokenStoreError,
    refuse_other_origin,
    write_token_manifest,
)
from neurolm.eeg.tokens import StoredTokens
from tests.eeg.test_shards import window, write_store

SHARDS: dict[str, Sequence[StoredWindow]] = {
    "test-a-00000.parquet": [window(seed) for seed in range(26, 30)],
    "train-a-00000.parquet": [window(seed) for seed in range(12)],
    "train-b-00000.parquet": [window(seed, 2, 600, data_set="hmc") for seed in range(12, 20)],
    "train-c-00000.parquet": [],
    "val-a-00000.parquet": [window(seed) for seed in range(20, 26)],
}


def encode(windows: Sequence[StoredWindow]) -> list[StoredWindow]:
    """Mean and deviation of every token; its code is made of the window's time."""
    encoded = []
    for one in windows:
        seconds = one.signal.reshape(len(one.signal), -1, 200).swapaxes(0, 1).reshape(-1, 200)
        features = np.stack([seconds.mean(1), seconds.std(1)], axis=1)
        codes = (np.arange(len(seconds)) + int(one.start_s)).astype(np.uint16)
        encoded.append(dataclasses.replace(one, tokens=StoredTokens(features, codes)))
    return encoded


def origin_of(store: Store) -> TokenOrigin:
    return TokenOrigin("tokenizer", store.digest, None, "float32")


def write_tokens(folder: Path, store: Store) -> Path:
    folder.mkdir()
    shards = token_shards(store.manifest)
    for shard in shards:
        write_token_shard(folder, store, shard, origin_of(store), encode)
    files = [account(folder, shard) for shard in shards]
    write_token_manifest(folder, TokenManifest(origin=origin_of(store), files=files))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(write_store(tmp_path / "store", SHARDS))


@pytest.fixture
def folder(tmp_path: Path, store: Store) -> Path:
    return write_tokens(tmp_path / "tokens", store)


def test_any_rows_are_read_in_the_order_asked(store: Store, folder: Path) -> None:
    tokens = TokenStore.open(folder, store, cache_bytes=1)
    rows = np.random.default_rng(0).permutation(np.concatenate([store.index(split).rows for split in ("train", "val")]))
    for found, expected in zip(tokens.read(rows), encode(store.read(rows)), strict=True):
        assert found.tokens is not None and expected.tokens is not None
        np.testing.assert_array_equal(found.tokens.features, expected.tokens.features)
        np.testing.assert_array_equal(found.tokens.codes, expected.tokens.codes)
        np.testing.assert_array_equal(found.channel_indices, expected.channel_indices)
        assert found.signal.shape == (len(expected.signal), 0)
        for name in ("row", "data_set", "subject", "recording", "start_s", "label"):
            assert getattr(found, name) == getattr(expected, name)
    assert tokens.read([]) == []


def test_shards_have_the_rows_and_row_groups_of_their_source(store: Store, folder: Path) -> None:
    assert sorted(path.name for path in folder.glob("*.parquet")) == sorted(set(SHARDS) - {"test-a-00000.parquet"})
    for path in folder.glob("*.parquet"):
        made, source = (pq.read_table(one / path.name) for one in (folder, store.path))
        assert made.drop_columns(["features", "codes"]).equals(source.drop_columns(["signal"]))
        sizes = [
            [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
            for metadata in (pq.read_metadata(one / path.name) for one in (folder, store.path))
        ]
        assert sizes[0] == sizes[1]


def test_parquet_alone_can_read_a_shard(folder: Path) -> None:
    row = pq.read_table(folder / "train-b-00000.parquet").slice(3, 1).to_pylist()[0]
    features = np.array(row["features"]).reshape(len(row["codes"]), -1)
    (expected,) = encode([SHARDS["train-b-00000.parquet"][3]])
    assert expected.tokens is not None
    np.testing.assert_allclose(features, expected.tokens.features)
    assert row["codes"] == expected.tokens.codes.tolist()
    assert row["num_times"] == 600


def test_the_test_split_has_no_tokens(store: Store, folder: Path) -> None:
    tokens = TokenStore.open(folder, store)
    for rows in ([0], [5, 3]):  # rows 0 to 3 are test-a
        with pytest.raises(SealedSplitError, match="no EEG tokens; only evaluate opens it"):
            tokens.read(rows)
    for rows in ([30], [-1]):
        with pytest.raises(IndexError, match="store of 30"):
            tokens.read(rows)


def test_cache_keeps_to_its_budget_and_does_not_travel(store: Store, folder: Path) -> None:
    tokens = TokenStore.open(folder, store, cache_bytes=150)
    rows = store.index("train").rows
    tokens.read(rows)
    assert len(tokens._cache) == 1  # a row group of three windows has 144 bytes
    copy = pickle.loads(pickle.dumps(tokens))
    assert len(copy._cache) == 0
    assert [one.row for one in copy.read(rows[:4])] == rows[:4].tolist()


def test_a_store_of_other_data_is_refused(tmp_path: Path, store: Store, folder: Path) -> None:
    other = Store.open(write_store(tmp_path / "other", SHARDS | {"val-a-00000.parquet": [window(99)]}))
    with pytest.raises(TokenMismatch) as caught:
        TokenStore.open(folder, other)
    assert f"the data (digest) is {store.digest} here and {other.digest} in this run" in str(caught.value)


def test_the_same_windows_in_other_shards_are_refused(tmp_path: Path, store: Store, folder: Path) -> None:
    """Same data digest, other rows: tokens would go to the wrong windows."""
    first, second = SHARDS["train-a-00000.parquet"], SHARDS["train-b-00000.parquet"]
    dealt = SHARDS | {"train-a-00000.parquet": first[:5], "train-b-00000.parquet": [*first[5:], *second]}
    other = Store.open(write_store(tmp_path / "other", dealt))
    assert other.digest == store.digest
    with pytest.raises(TokenMismatch, match=r"shard train-a-00000\.parquet: EEG tokens of a file with SHA-256 "):
        TokenStore.open(folder, other)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tokenizer": "other"}, r"the tokenizer \(digest\) is tokenizer here and other in this run"),
        ({"compat_pad_to": 276}, "compat_pad_to is None here and 276 in this run"),
        ({"dtype": "bfloat16"}, r"data\.tokens is float32 here and bfloat16 in this run"),
    ],
)
def test_a_mismatch_names_both_values(store: Store, folder: Path, change: dict[str, object], words: str) -> None:
    expected = dataclasses.replace(origin_of(store), **change)  # type: ignore[arg-type]
    with pytest.raises(TokenMismatch, match=words + r"\. .*tokenize_eeg\.py.*data\.tokens=none"):
        refuse_other_origin(folder, TokenStore.open(folder, store).manifest.origin, expected)
    assert not has_tokens(folder, token_shards(store.manifest)[0], expected)


def test_a_shard_of_another_source_file_is_not_taken_for_done(store: Store, folder: Path) -> None:
    shard = token_shards(store.manifest)[0]
    assert has_tokens(folder, shard, origin_of(store))
    assert not has_tokens(folder, dataclasses.replace(shard, source_sha256="other"), origin_of(store))
    grown = dataclasses.replace(origin_of(store), data="a store that grew by a shard")
    assert has_tokens(folder, shard, grown)
    (folder / shard.name).write_bytes(b"PAR1")
    assert not has_tokens(folder, shard, origin_of(store))


def test_folders_that_are_no_token_store(tmp_path: Path, store: Store, folder: Path) -> None:
    with pytest.raises(TokenStoreError, match=r"does not exist; write them with ray_jobs/tokenize_eeg\.py"):
        TokenStore.open(tmp_path / "nowhere", store)
    with pytest.raises(TokenStoreError, match="holds something else than EEG tokens"):
        TokenStore.open(store.path, store)
    manifest = folder / "manifest.json"
    values = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(values | {"schema_version": 99}))
    with pytest.raises(TokenStoreError, match="schema version 99"):
        TokenStore.open(folder, store)
    manifest.unlink()
    with pytest.raises(TokenStoreError, match="writing did not finish"):
        TokenStore.open(folder, store)


def test_shards_must_be_as_the_manifest_says(store: Store, folder: Path) -> None:
    path = folder / "train-a-00000.parquet"
    content = path.read_bytes()
    path.write_bytes((folder / "val-a-00000.parquet").read_bytes())
    with pytest.raises(TokenStoreError, match=r"train-a-00000\.parquet: 6 windows, its source has 12"):
        TokenStore.open(folder, store)
    path.write_bytes(content[:-20])
    with pytest.raises(TokenStoreError, match=r"train-a-00000\.parquet: this shard cannot be read"):
        TokenStore.open(folder, store)


def test_a_failed_shard_leaves_nothing(tmp_path: Path, store: Store) -> None:
    def fail(windows: Sequence[StoredWindow]) -> list[StoredWindow]:
        if windows[0].start_s > 0:  # the second row group
            raise RuntimeError("boom")
        return encode(windows)

    with pytest.raises(RuntimeError, match="boom"):
        write_token_shard(tmp_path, store, token_shards(store.manifest)[0], origin_of(store), fail)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
