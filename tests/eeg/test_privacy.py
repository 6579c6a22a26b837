import multiprocessing
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurolm.eeg.privacy import (
    PrivacyKeyError,
    foreign_words,
    home,
    key_fingerprint,
    keyed_id,
    load_key,
    recording_called,
    spoken_name,
    told,
)

NAMES = st.characters(exclude_categories=["Cs"])


def test_key_is_made_once_and_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROLM_HOME", str(tmp_path / "private"))
    key = load_key(None)
    assert len(key) == 32
    assert load_key(None) == key
    assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o700
    assert stat.S_IMODE((home() / "privacy.key").stat().st_mode) == 0o600
    assert os.listdir(home()) == ["privacy.key"]


def test_own_key_file(tmp_path: Path) -> None:
    (tmp_path / "group.key").write_bytes(bytes(range(32)))
    (tmp_path / "group.key").chmod(0o600)
    assert load_key(tmp_path / "group.key") == bytes(range(32))


def test_open_key_file_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "group.key").write_bytes(bytes(32))
    (tmp_path / "group.key").chmod(0o644)
    load_key(tmp_path / "group.key")
    assert "chmod 600" in caplog.text


def test_wrong_key_file_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "group.key").write_bytes(b"short")
    with pytest.raises(PrivacyKeyError, match=r"group\.key: a key has 32 bytes, this file 5"):
        load_key(tmp_path / "group.key")
    assert (tmp_path / "group.key").read_bytes() == b"short"


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(PrivacyKeyError, match="folder"):
        load_key(tmp_path / "nowhere" / "group.key")


def test_processes_that_start_together_agree_on_one_key(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        keys = pool.map(load_key, [tmp_path / "k"] * 8, chunksize=1)
    assert len(set(keys)) == 1


def test_id_is_hmac_sha256() -> None:
    # printf 'subject\0S001' | openssl dgst -sha256 -mac HMAC -macopt hexkey:<64 zeros>
    assert keyed_id(bytes(32), "subject", "S001") == "4a426c2b4877a1d2"


@given(st.binary(min_size=32, max_size=32), st.text(NAMES), st.text(NAMES))
def test_ids_tell_texts_kinds_and_keys_apart(key: bytes, one: str, other: str) -> None:
    assert len(keyed_id(key, "subject", one)) == 16
    assert (keyed_id(key, "subject", one) == keyed_id(key, "subject", other)) == (one == other)
    assert keyed_id(key, "subject", one) != keyed_id(key, "recording", one)
    assert keyed_id(key, "subject", one) != keyed_id(bytes(b ^ 1 for b in key), "subject", one)
    assert key_fingerprint(key) != keyed_id(key, "subject", "")


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        ("/data/Ada_1/x.edf: truncated: 3 records", "THIS: truncated: 3 records"),
        ("x.edf: channel 'O1' is missing; the file has 'EEG Fpz1', 'Ada Muster', 'ECG ECG'", None),
        ("the mark \"O'Ada\" of the file's header", "the mark '(withheld)' of the file's header"),
        ("cannot read\n  'born 1970'", "cannot read '(withheld)'"),
        ("cannot read [Errno 13] '/data/Ada_1/x.edf'", "cannot read [Errno 13] '(withheld)'"),
        ("in folder ada_1 of S1, not of MS1", "in folder THIS of THIS, not of MS1"),
    ],
)
def test_messages_are_told_without_names(message: str, kept: str | None) -> None:
    names = ["/data/Ada_1/x.edf", "x.edf", "Ada_1", "S1", "x"]
    expected = "THIS: channel 'O1' is missing; the file has 'EEG Fpz1', '(withheld)', 'ECG ECG'"
    assert told(message, names, "THIS") == (kept or expected)


@given(name=st.text(NAMES, min_size=1, max_size=12).filter(lambda text: len(text.split()) == 1))
def test_no_quoted_name_is_told(name: str) -> None:
    words = f"the file has {name!r}, {'Z' + name + 'quoted'!r}"
    assert "quoted" not in told(words)


def test_of_foreign_errors_only_the_kind_is_told() -> None:
    assert foreign_words(ValueError("invalid literal: b'Ada Muster'")) == "ValueError"
    assert (
        foreign_words(PermissionError(13, "Permission denied", "/data/Ada.edf")) == "PermissionError: Permission denied"
    )


def test_readers_speak_of_the_recording_by_its_id() -> None:
    with recording_called("0123456789abcdef"):
        assert spoken_name() == "0123456789abcdef"
    assert spoken_name() == "the recording"
