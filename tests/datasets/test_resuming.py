"""A store that was interrupted, extended or repaired is, byte by byte, the one that is made at once."""

import contextlib
import errno
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurolm.config import build
from neurolm.datasets import LAYOUTS
from neurolm.datasets.dataset import SourceFile
from neurolm.datasets.ingest import DataConfig, plan_downstream, run_locally, write_store
from neurolm.datasets.workload import Workload
from neurolm.eeg.recording import Recording, RecordingError
from neurolm.eeg.shards import Manifest, Store, open_test_split
from neurolm.eeg.windows import Window, cut

READ: Counter[str] = Counter()
"""How often each file was read."""


@dataclass(frozen=True, kw_only=True)
class Fake(Workload):
    """Workload's layout; a file's text is the seed of its noise, and an empty file is broken."""

    name: str = "fake"

    def read(self, source: SourceFile) -> Recording:
        READ[source.path.name] += 1
        text = source.path.read_text()
        if not text:
            raise RecordingError(f"{source.path}: empty")
        return Recording(np.random.default_rng(int(text)).normal(0, 20, (2, 1700)), 200.0, ("CZ", "PZ"))

    def windows(self, source: SourceFile, recording: Recording) -> tuple[list[Window], Counter[str]]:
        return cut(recording, duration_s=2, stride_s=2, label=source.label), Counter({"left over": 1})


def as_float32(recording: Recording, *settings: object) -> Recording:
    """In place of filters, which take most of the time and are not what is tested here."""
    return replace(recording, signal=recording.signal.astype(np.float32))


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYOUTS, "fake", Fake())
    monkeypatch.setattr("neurolm.datasets.jobs.preprocess", as_float32)
    monkeypatch.setattr("neurolm.datasets.plan.SHARD_SOURCE_BYTES", 9)
    monkeypatch.setattr("neurolm.datasets.parts.ROW_GROUP_BYTES", 7000)  # 3,200 bytes are a window, 4 a recording
    READ.clear()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    for subject in range(8):
        add(tmp_path / "raw", subject)
    (tmp_path / "raw" / "Subject03_1.edf").write_text("")
    return tmp_path / "raw"


def add(root: Path, subject: int) -> None:
    for part in (1, 2):
        (root / f"Subject{subject:02d}_{part}.edf").write_text(f"{10 * subject + part:03d}")


def write(root: Path, store: Path, run: Any = run_locally, **changes: Any) -> Manifest:
    values = {
        "root": root,
        "sets": {"fake": {"layout": "fake"}},
        "privacy": {"key_file": root.parent / "key"},
        "split": {"counts": [6, 1, 1]},
    }
    return write_store(plan_downstream(build(DataConfig, values | changes, "test"), store), store, run)


def content(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}


def test_a_store_holds_shards_accounts_and_a_manifest_and_nothing_else(root: Path, tmp_path: Path) -> None:
    manifest = write(root, tmp_path / "store")
    shards = {file["name"] for file in manifest.files}
    assert len(shards) >= 5
    beside = {f"accounts/{name}.json" for name in shards} | {f"fingerprints/{name}" for name in shards}
    assert set(content(tmp_path / "store")) == shards | beside | {"manifest.json"}
    assert manifest.counts["num_windows"] == 15 * 4
    assert manifest.dropped == {"left over": 15}
    assert next(iter(manifest.quarantined.values())).startswith("RecordingError: ")
    assert set(READ.values()) == {1}
    store = Store.open(tmp_path / "store", open_test_split(manifest.data_digest, "test"))
    windows = [window for split in ("train", "val", "test") for window in store.read(store.index(split).rows)]
    assert len({(window.recording, window.start_s) for window in windows}) == 60
    assert manifest.config["data_sets"]["fake"]["window_s"] == 4.0
    assert manifest.config["split"]["counts"] == [6, 1, 1]


class Killed(BaseException):
    """What a test raises where a process would end."""


@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.kill)])
def test_killed_at_any_change_of_a_file_and_run_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stride: int
) -> None:
    expected = write(root, tmp_path / "whole") and content(tmp_path / "whole")
    real = {name: getattr(Path, name) for name in ("replace", "unlink", "mkdir", "write_text")}
    for kill_at in itertools.count(step=stride):
        calls = itertools.count()

        def killing(name: str, kill_at: int = kill_at, calls: Iterable[int] = calls) -> Callable[..., Any]:
            def call(self: Path, *arguments: Any, **settings: Any) -> Any:
                if next(calls) >= kill_at:  # type: ignore[call-overload]
                    raise Killed
                return real[name](self, *arguments, **settings)

            return call

        store = tmp_path / str(kill_at) / "store"
        store.parent.mkdir()
        READ.clear()
        with monkeypatch.context() as patch:
            for name in real:
                patch.setattr(Path, name, killing(name))
            try:
                write(root, store)
                break
            except Killed:
                assert not (store / "manifest.json").exists() or content(store).keys() >= expected.keys()
        finished = set(READ)
        write(root, store)
        assert content(store) == expected
        assert sum(READ.values()) <= 17 + len(finished & {"Subject03_1.edf"})  # the one that was being read, again
    assert kill_at > 60


def test_an_extended_store_is_the_one_made_at_once(root: Path, tmp_path: Path) -> None:
    write(root, tmp_path / "store")
    stamps = {path.name: path.stat().st_ino for path in (tmp_path / "store").glob("*.parquet")}
    (tmp_path / "raw" / "Subject03_1.edf").write_text("031")
    add(root, 9)
    READ.clear()
    split = {"split": {"counts": [6, 1, 2]}}
    extended = write(root, tmp_path / "store", **split)
    assert READ == {"Subject03_1.edf": 1, "Subject09_1.edf": 1, "Subject09_2.edf": 1}
    at_once = write(root, tmp_path / "at once", **split)
    assert extended == at_once
    assert content(tmp_path / "store") == content(tmp_path / "at once")
    kept = [path for path in (tmp_path / "store").glob("*.parquet") if stamps.get(path.name) == path.stat().st_ino]
    assert len(kept) >= len(stamps) - 2


def test_an_extension_that_is_killed_anywhere_reads_nothing_twice(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root, tmp_path / "0" / "store")
    before = content(tmp_path / "0" / "store")
    add(root, 9)
    add(root, 10)
    split = {"split": {"counts": [5, 2, 3]}}  # subjects change their split, too
    write(root, tmp_path / "whole", **split)
    expected = content(tmp_path / "whole")
    real = Path.replace
    for kill_at in itertools.count():
        calls = itertools.count()

        def killing(self: Path, target: Path, kill_at: int = kill_at, calls: Any = calls) -> Path:
            if next(calls) >= kill_at:
                raise Killed
            return real(self, target)

        store = tmp_path / f"kill {kill_at}" / "store"
        for name, data in before.items():
            (store / name).parent.mkdir(parents=True, exist_ok=True)
            (store / name).write_bytes(data)
        READ.clear()
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", killing)
            try:
                write(root, store, **split)
                break
            except Killed:
                pass
        write(root, store, **split)
        assert content(store) == expected
        old = [name for name in READ if name not in {f"Subject{s:02d}_{p}.edf" for s in (9, 10) for p in (1, 2)}]
        assert old == ["Subject03_1.edf"]  # in quarantine: tried by every run
        assert max(READ[f"Subject{s:02d}_{p}.edf"] for s in (9, 10) for p in (1, 2)) <= 2
    assert kill_at > 20


def test_nothing_is_done_where_nothing_has_changed(root: Path, tmp_path: Path) -> None:
    write(root, tmp_path / "store")
    shards = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("*.parquet")}
    before = content(tmp_path / "store")
    READ.clear()

    def run(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        assert (tmp_path / "store" / "manifest.json").exists()  # the store can be used all the time
        return map(function, items)

    write(root, tmp_path / "store", run)
    assert READ == {"Subject03_1.edf": 1}
    assert content(tmp_path / "store") == before
    assert {path: path.stat().st_mtime_ns for path in shards} == shards


def test_removed_recordings_leave_and_changed_ones_are_read_again(root: Path, tmp_path: Path) -> None:
    write(root, tmp_path / "store")
    (root / "Subject05_2.edf").unlink()
    (root / "Subject06_1.edf").write_text("987")
    (root / "Subject01_1.edf").write_text("")
    READ.clear()
    changed = write(root, tmp_path / "store")
    assert set(READ) == {"Subject01_1.edf", "Subject03_1.edf", "Subject06_1.edf"}
    assert len(changed.quarantined) == 2
    write(root, tmp_path / "at once")
    assert content(tmp_path / "store") == content(tmp_path / "at once")


def test_a_locked_file_is_quarantined_and_tried_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Fake.read

    def locked(self: Fake, source: SourceFile) -> Recording:
        if source.path.name == "Subject04_1.edf":
            raise PermissionError(13, "Permission denied", str(source.path))
        return real(self, source)

    with monkeypatch.context() as patch:
        patch.setattr(Fake, "read", locked)
        manifest = write(root, tmp_path / "store")
    (reason,) = [reason for reason in manifest.quarantined.values() if "PermissionError" in reason]
    assert "Subject04" not in reason
    READ.clear()
    unlocked = write(root, tmp_path / "store")
    assert READ == {"Subject03_1.edf": 1, "Subject04_1.edf": 1}
    assert len(unlocked.quarantined) == 1
    write(root, tmp_path / "at once")
    assert content(tmp_path / "store") == content(tmp_path / "at once")


def test_a_full_disk_is_no_fault_of_a_recording(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Fake, source: SourceFile) -> Recording:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Fake, "read", full)
    with pytest.raises(OSError, match="No space left"):
        write(root, tmp_path / "store")


def test_shards_of_an_earlier_version_leave_with_their_manifest(root: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / "train-fake-00000.parquet").write_bytes(b"old")
    (store / "notes.txt").write_text("mine")
    (store / "manifest.json").write_text('{"schema_version": 1, "files": [{"name": "train-fake-00000.parquet"}]}')
    write(root, store)
    assert not (store / "train-fake-00000.parquet").exists()
    assert (store / "notes.txt").exists()


def test_float16_halves_the_values_and_drops_what_it_cannot_hold(root: Path, tmp_path: Path) -> None:
    one = write(root, tmp_path / "32")
    half = write(root, tmp_path / "16", signal_dtype="float16")
    assert half.config["signal_dtype"] == "float16"
    assert half.data_digest != one.data_digest
    exact, rounded = Store.open(tmp_path / "32"), Store.open(tmp_path / "16")
    rows = exact.index("train").rows
    for window, other in zip(exact.read(rows), rounded.read(rows), strict=True):
        assert other.signal.dtype == np.float32
        np.testing.assert_array_equal(other.signal, window.signal.astype(np.float16))


def store_process(root: Path, out: Path, *runner: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "tests.datasets.store_process", str(root), str(root.parent / "key")]
    return subprocess.Popen(
        [*command, str(out / "store"), *runner],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1", "NEUROLM_HOME": str(root.parent)},
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )


def kill_until_whole(root: Path, out: Path, rng: random.Random, num_kills: int, *runner: str) -> list[str]:
    """Start the writing and kill it when some more files have appeared, so often, and then let it end.

    Returns the last file that was seen before each kill.
    """
    last = []
    for _ in range(num_kills):
        process = store_process(root, out, *runner)
        seen = set((out / "store").rglob("*"))
        appeared: list[Path] = []
        patience = rng.randint(2, 25)
        while process.poll() is None and len(appeared) < patience:
            with contextlib.suppress(FileNotFoundError):  # a folder that goes away while it is listed
                appeared += sorted(set((out / "store").rglob("*")) - seen - set(appeared))
            time.sleep(0.002)
        if process.poll() is None:
            last.append(appeared[-1].name)
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert store_process(root, out, *runner).wait() == 0
    return last


def linked(source: Path, root: Path, pattern: str) -> Path:
    root.mkdir()
    for path in source.glob(pattern):
        (root / path.name).symlink_to(path)
    return root


def test_a_process_that_is_killed_goes_on_where_it_was(demo_recordings: Path, tmp_path: Path) -> None:
    root = linked(demo_recordings / "workload", tmp_path / "raw", "Subject0[0-3]*.edf")
    assert store_process(root, tmp_path / "whole").wait() == 0
    assert kill_until_whole(root, tmp_path / "killed", random.Random(0), 2)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


@pytest.mark.kill
@pytest.mark.parametrize("runner", [(), ("ray",)])
def test_real_recordings_killed_at_random(test_data: Path, tmp_path: Path, runner: tuple[str, ...]) -> None:
    root = linked(test_data / "eegmat", tmp_path / "raw", "Subject*.edf")
    (root / "Subject99_1.edf").write_bytes((test_data / "eegmat" / "Subject00_1.edf").read_bytes()[:5000])
    assert store_process(root, tmp_path / "whole", *runner).wait() == 0
    expected = content(tmp_path / "whole")
    for seed in range(2):
        killed = kill_until_whole(root, tmp_path / f"killed {seed}", random.Random(seed), 5, *runner)
        assert killed
        assert content(tmp_path / f"killed {seed}") == expected
        digest = json.loads(expected["store/manifest.json"])["data_digest"]
        print(f"{runner or 'local'}: killed at {', '.join(killed)}; then {len(expected)} equal files, digest {digest}")


def test_what_the_machine_lacks_is_no_fault_of_a_recording(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(self: Fake, source: SourceFile) -> Recording:
        try:
            raise OSError(errno.EMFILE, "Too many open files")
        except OSError:
            raise RecordingError(f"{source.path}: MNE cannot read this file (OSError)") from None

    monkeypatch.setattr(Fake, "read", read)
    with pytest.raises(RecordingError, match="MNE cannot read this file"):
        write(root, tmp_path / "store")
    assert not (tmp_path / "store" / "manifest.json").exists()
