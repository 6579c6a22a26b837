"""A checkpoint counts when it is whole, on any storage; a damaged one is found whatever was done to it."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurolm.training import checkpoint_manifest, run_checkpoint
from neurolm.training.full_disk import CheckpointError, clear_about_space
from neurolm.training.run_checkpoint import Part, RunCheckpoints
from neurolm.training.storage import StorageError, file_names, open_storage


def write_part(checkpoints: RunCheckpoints, step: int, rank: int, world_size: int, size: int = 3000) -> Path:
    """What a worker leaves to be committed."""
    folder = checkpoints.scratch(step, rank)
    (folder / "engine").mkdir()
    data = np.random.default_rng([step, rank]).bytes(size)
    (folder / "engine" / f"rank-{rank}.bin").write_bytes(data)
    (folder / f"empty-{rank}").touch()
    Part(rank, world_size, step, {"config": "c"}, {"score": 0.5}, {"skipped_steps": []}).write(folder)
    return folder


def save(checkpoints: RunCheckpoints, step: int, world_size: int = 1) -> Path:
    """A whole checkpoint; its folder, where it is on this machine."""
    name = checkpoints.new_name(step)
    for rank in reversed(range(world_size)):
        path = checkpoints.commit(write_part(checkpoints, step, rank, world_size), name)
    return Path(path)


@pytest.fixture(params=["folder", "file", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    places = {"folder": str(tmp_path), "file": tmp_path.as_uri(), "memory": f"memory://{tmp_path}"}
    place: str = places[request.param]
    return place


def test_what_is_committed_is_found_and_read_again(storage: str) -> None:
    checkpoints = RunCheckpoints(storage, "run", keep=2)
    assert checkpoints.choose().name is None
    for step in (4, 8, 12):
        save(checkpoints, step, world_size=3)
    choice = RunCheckpoints(storage, "run").choose_for_workers()
    assert (choice.step, choice.damaged, choice.warning) == (12, {}, None)
    assert RunCheckpoints(storage, "run").chosen() == choice
    with checkpoints.opened(choice) as folder:
        assert folder is not None
        assert Part.read(folder, 1) == Part(1, 3, 12, {"config": "c"}, {"score": 0.5}, {"skipped_steps": []})
        assert (folder / "engine" / "rank-2.bin").read_bytes() == np.random.default_rng([12, 2]).bytes(3000)
        assert len(list(folder.rglob("*.bin"))) == 3
    # The first worker is the last to commit here, and then forgets what is too old.
    assert [name[:13] for name in checkpoints._names()] == ["step-00000012", "step-00000008"]


def flip(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "emptied": lambda path: path.write_bytes(b""),
    "first bit": lambda path: flip(path, 0),
    "bit in the middle": lambda path: flip(path, 0.5),
    "last bit": lambda path: flip(path, 1),
    "grown": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "deleted": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", ["engine/rank-1.bin", "part-0.json", "manifest-1.json"])
def test_a_damaged_file_of_any_kind_is_found_and_the_checkpoint_before_is_taken(
    file: str, damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = RunCheckpoints(str(tmp_path), "run")
    save(checkpoints, 4, world_size=2)
    broken = save(checkpoints, 8, world_size=2)
    DAMAGE[damage](broken / file)
    choice = checkpoints.choose()
    assert choice.step == 4
    assert "step-00000008" in caplog.text
    if (file, damage) == ("manifest-1.json", "deleted"):  # as if the worker had been killed before it was written
        assert "never finished" in caplog.text
    else:
        assert choice.warning is not None and f"{file} " in choice.warning and "resumes at step 4" in choice.warning
        assert "is damaged" in caplog.text
        caplog.clear()
        assert checkpoints.choose().step == 4 and not caplog.text  # it was said once
    # It takes no place of a whole one.
    save(checkpoints, 9)
    save(checkpoints, 10)
    assert [name[:13] for name in checkpoints._names()] == ["step-00000010", "step-00000009"]


def test_where_none_is_whole_that_is_said_and_nothing_starts_again(tmp_path: Path) -> None:
    checkpoints = RunCheckpoints(str(tmp_path), "run")
    for step in (4, 8):
        flip(save(checkpoints, step) / "engine" / "rank-0.bin", 0.5)
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"no checkpoint here is whole: step-00000008.*step-00000004.*Copy"):
            checkpoints.choose()
    assert checkpoints.choose_for_workers().error
    with pytest.raises(CheckpointError, match="no checkpoint here is whole"):
        checkpoints.chosen()


def test_a_choice_that_cannot_be_left_is_not_mistaken_for_an_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = RunCheckpoints(str(tmp_path), "run")
    save(checkpoints, 4)
    assert checkpoints.choose_for_workers().step == checkpoints.chosen().step == 4

    def refuse(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_checkpoint, "write_bytes", refuse)
    assert checkpoints.choose_for_workers().step == 4
    with pytest.raises(CheckpointError, match=r"resume_from\.json: cannot be read .*has room"):
        checkpoints.chosen()
    monkeypatch.setattr(run_checkpoint, "folder_names", refuse)
    with pytest.raises(CheckpointError, match="the checkpoints cannot be read"):
        checkpoints.choose()


def test_what_workers_did_not_finish_does_not_count(tmp_path: Path) -> None:
    checkpoints = RunCheckpoints(str(tmp_path), "run", keep=1)
    first = checkpoints.new_name(3)
    checkpoints.commit(write_part(checkpoints, 3, 0, 2), first)
    left = write_part(checkpoints, 5, 0, 1)
    assert left.is_dir()
    assert checkpoints.choose().name is None
    assert not left.exists()
    # Neither do two halves of different numbers of workers.
    checkpoints.commit(write_part(checkpoints, 3, 1, 3), first)
    with pytest.raises(CheckpointError, match="different steps or numbers of workers"):
        checkpoints.choose()
    save(checkpoints, 5)
    assert checkpoints.choose().step == 5
    assert len(checkpoints._names()) == 1


def test_checkpoints_of_one_step_do_not_mix(tmp_path: Path) -> None:
    """A run that fell back reaches the step of a damaged checkpoint again, perhaps with other workers."""
    checkpoints = RunCheckpoints(str(tmp_path), "run")
    save(checkpoints, 4, world_size=2)
    damaged = save(checkpoints, 8, world_size=2)
    flip(damaged / "part-1.json", 0.5)
    assert checkpoints.choose().step == 4
    again = save(checkpoints, 8, world_size=1)
    choice = checkpoints.choose()
    assert choice.name == again.name != damaged.name


def test_a_full_disk_leaves_the_last_checkpoint_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = RunCheckpoints(f"memory://{tmp_path}", "run")
    save(checkpoints, 4)
    monkeypatch.setattr(run_checkpoint, "RETRY_AFTER_S", (0.0, 0.0))
    attempts = []

    def refuse(source: Any, sink: Any) -> str:
        attempts.append(sink)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(run_checkpoint, "hash_and_copy", refuse)
        scratch = write_part(checkpoints, 8, 0, 1)
        with pytest.raises(CheckpointError, match=r"step-00000008.*No space left.*it takes about 0\.0 MB.*make room"):
            checkpoints.commit(scratch, checkpoints.new_name(8))
    assert len(attempts) == 3 and not scratch.exists()
    assert checkpoints.choose().step == 4
    save(checkpoints, 8)
    assert checkpoints.choose().step == 8


def test_a_storage_that_fails_once_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = RunCheckpoints(f"memory://{tmp_path}", "run")
    monkeypatch.setattr(run_checkpoint, "RETRY_AFTER_S", (0.0, 0.0))
    copy, failures = run_checkpoint.hash_and_copy, [1, 1]

    def sometimes(source: Any, sink: Any) -> str:
        if failures:
            failures.pop()
            raise ConnectionResetError("the other side hung up")
        return copy(source, sink)

    monkeypatch.setattr(run_checkpoint, "hash_and_copy", sometimes)
    save(checkpoints, 4)
    assert checkpoints.choose().step == 4


def test_a_storage_that_does_not_answer_damages_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = RunCheckpoints(f"memory://{tmp_path}", "run")
    save(checkpoints, 4)

    def hang_up(*arguments: Any) -> str:
        raise ConnectionResetError("the other side hung up")

    for read in ("read_bytes", "hash_and_copy"):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint_manifest, read, hang_up)
            with pytest.raises(CheckpointError, match=r"cannot be read \(the other side hung up\)"):
                checkpoints.choose()
    assert checkpoints.choose().step == 4


def test_other_errors_are_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="something else"), clear_about_space("it", tmp_path):
        raise RuntimeError("something else")
    said = r"it: cannot be written \(PytorchStreamWriter failed writing file data.pkl\)"
    with pytest.raises(CheckpointError, match=said), clear_about_space("it", tmp_path):
        raise RuntimeError("PytorchStreamWriter failed writing file data.pkl\nand a stack")


def test_a_model_is_kept_with_checkpoints_that_lie_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("manifest.json", "model.safetensors"):
        (folder / name).write_text(name)
    local, remote = (RunCheckpoints(place, "run") for place in (str(tmp_path / "c"), f"memory://{tmp_path}"))
    for checkpoints in (local, remote):
        checkpoints.publish_model(folder)
    assert file_names(remote.filesystem, f"{remote.path}/model") == {"manifest.json": 13, "model.safetensors": 17}
    local.fetch_model(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    remote.fetch_model(tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_text() == "model.safetensors"


def test_addresses(tmp_path: Path) -> None:
    assert open_storage(f"file://{tmp_path}")[1] == open_storage(str(tmp_path))[1] == str(tmp_path)
    filesystem, path = open_storage("s3://bucket/runs?region=eu-central-1&endpoint_override=127.0.0.1:1&scheme=http")
    assert (filesystem.type_name, path) == ("s3", "bucket/runs")
    with pytest.raises(StorageError, match="holds a key or a password") as caught:
        open_storage("s3://KEY:SECRET@bucket/runs")
    assert "SECRET" not in str(caught.value)
    with pytest.raises(StorageError, match="nosuch://place: cannot be opened"):
        open_storage("nosuch://place")


def test_a_manifest_says_size_and_sha256_of_every_file(tmp_path: Path) -> None:
    folder = save(RunCheckpoints(str(tmp_path), "run"), 4)
    manifest = json.loads((folder / "manifest-0.json").read_text())
    assert sorted(manifest["files"]) == ["empty-0", "engine/rank-0.bin", "part-0.json"]
    assert manifest["files"]["engine/rank-0.bin"]["size"] == 3000
    assert (manifest["rank"], manifest["world_size"], manifest["step"]) == (0, 1, 4)


def test_a_run_that_nobody_resumes_is_cleared(storage: str) -> None:
    checkpoints, other = RunCheckpoints(storage, "run"), RunCheckpoints(storage, "other")
    checkpoints.clear()  # of nothing
    for step in (4, 8):
        save(checkpoints, step)
    save(other, 4)
    checkpoints.clear()
    assert checkpoints.choose().name is None and other.choose().step == 4
