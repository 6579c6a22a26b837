import hashlib
import random
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from neurolm.cli import main
from neurolm.datasets import LAYOUTS
from neurolm.datasets.download import URL_VARIABLE, Downloaded, download
from neurolm.datasets.https import DownloadError, check_url, retry_after_s
from neurolm.datasets.sources import OPEN_SETS, SourceError
from neurolm.datasets.transfer import PROGRESS_BYTES, Client, Retries, Stopped
from tests.datasets.server import (
    Misbehaviour,
    Server,
    another_range,
    corrupted,
    drop_after,
    serving,
    status,
    unannounced,
    without_ranges,
)

ROOT = "/files/eegmat/1.0.0"
FAST = Retries(attempts=3, first_s=0.001, longest_s=0.002, patience_s=5)
NAME = "Subject01_1.edf"


def content_of(name: str, num_bytes: int = 200_000) -> bytes:
    return random.Random(name).randbytes(num_bytes)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def publish(server: Server, files: dict[str, bytes]) -> None:
    """Serve files with the list of their sums, as PhysioNet writes it."""
    listed = "".join(f"{sha256(content)} {name}\n" for name, content in files.items())
    server.files |= {f"{ROOT}/{name}": content for name, content in files.items()}
    server.files[f"{ROOT}/SHA256SUMS.txt"] = listed.encode()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        names = [f"Subject0{subject}_{suffix}.edf" for subject in (1, 2, 3) for suffix in (1, 2)]
        publish(server, {name: content_of(name) for name in [*names, "RECORDS", "info/README.txt"]})
        yield server


def fetch(server: Server, folder: Path, *, retries: Retries = FAST, subjects: int | None = None) -> Downloaded:
    base_url = f"{server.url}/files"
    return download(OPEN_SETS["workload"], folder, base_url=base_url, retries=retries, num_subjects=subjects)


def assert_is_right(server: Server, folder: Path) -> None:
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == {path.removeprefix(f"{ROOT}/"): content for path, content in server.files.items()}


def test_everything_is_fetched_once(server: Server, tmp_path: Path) -> None:
    assert fetch(server, tmp_path / "new" / "eegmat") == Downloaded(8, 0, 0, sum(map(len, server.files.values())))
    assert_is_right(server, tmp_path / "new" / "eegmat")
    assert set(server.asked().values()) == {1}

    server.requests.clear()
    done = fetch(server, tmp_path / "new" / "eegmat")
    assert (done.fetched, done.replaced, done.present) == (0, 0, 8)
    assert list(server.asked()) == [f"{ROOT}/SHA256SUMS.txt"]


def test_files_of_the_first_subjects(server: Server, tmp_path: Path) -> None:
    assert fetch(server, tmp_path, subjects=2).fetched == 6
    assert sorted(path.name for path in tmp_path.glob("*.edf")) == [
        f"Subject0{subject}_{suffix}.edf" for subject in (1, 2) for suffix in (1, 2)
    ]
    assert (tmp_path / "info" / "README.txt").exists()


@pytest.mark.parametrize(
    ("misbehaviours", "ranges"),
    [
        ([drop_after(150_000)], ["", "bytes=131072-"]),
        ([drop_after(70_000), drop_after(70_000)], ["", "bytes=65536-", "bytes=131072-"]),
        ([drop_after(70_000), without_ranges], ["", "bytes=65536-"]),
        ([drop_after(70_000), another_range], ["", "bytes=65536-", ""]),
        ([drop_after(0)], ["", ""]),
        ([corrupted], ["", ""]),
        ([drop_after(70_000), corrupted], ["", "bytes=65536-", ""]),
        ([status(500), status(503)], ["", "", ""]),
        ([unannounced(extra=b"more")], ["", ""]),
        ([unannounced(missing=5)], ["", ""]),
    ],
    ids=[
        "dropped", "dropped twice", "ranges ignored", "another range", "nothing sent", "corrupted",
        "corrupted when resumed", "errors", "too much", "too little",
    ],
)  # fmt: skip
def test_a_file_arrives_whatever_happens(
    misbehaviours: list[Misbehaviour], ranges: list[str], server: Server, tmp_path: Path
) -> None:
    server.misbehaviours[f"{ROOT}/{NAME}"] = list(misbehaviours)
    assert fetch(server, tmp_path).fetched == 8
    assert_is_right(server, tmp_path)
    assert server.ranges(f"{ROOT}/{NAME}") == ranges


def test_another_run_continues_where_one_was_stopped(server: Server, tmp_path: Path) -> None:
    server.misbehaviours[f"{ROOT}/{NAME}"] = [drop_after(70_000)] * 3
    one_try = Retries(attempts=1, first_s=0.001)
    with pytest.raises(DownloadError, match="broke off after 6"):
        fetch(server, tmp_path, retries=one_try)
    assert not (tmp_path / NAME).exists()
    assert sum(path.stat().st_size for path in tmp_path.glob("*.part")) == 65_536

    server.misbehaviours.clear()
    server.requests.clear()
    assert fetch(server, tmp_path).fetched == 1
    assert server.ranges(f"{ROOT}/{NAME}") == ["bytes=65536-"]
    assert_is_right(server, tmp_path)


def test_what_was_begun_of_another_version_is_not_continued(server: Server, tmp_path: Path) -> None:
    server.misbehaviours[f"{ROOT}/{NAME}"] = [drop_after(70_000)]
    with pytest.raises(DownloadError):
        fetch(server, tmp_path, retries=Retries(attempts=1, first_s=0.001))
    publish(server, {NAME: content_of("a new version")})
    server.requests.clear()
    assert fetch(server, tmp_path).fetched == 1
    assert server.ranges(f"{ROOT}/{NAME}") == [""]
    assert (tmp_path / NAME).read_bytes() == content_of("a new version")
    assert not list(tmp_path.rglob("*.part"))


def test_a_part_that_is_whole_already_is_only_checked(server: Server, tmp_path: Path) -> None:
    content = content_of(NAME)
    (tmp_path / f"{NAME}.{sha256(content)[:16]}.part").write_bytes(content)
    assert fetch(server, tmp_path).fetched == 8
    assert_is_right(server, tmp_path)


def test_a_damaged_file_is_replaced_only_when_the_right_one_is_there(server: Server, tmp_path: Path) -> None:
    fetch(server, tmp_path)
    damaged = content_of(NAME)[:-1] + b"?"
    (tmp_path / NAME).write_bytes(damaged)
    server.misbehaviours[f"{ROOT}/{NAME}"] = [corrupted] * 3
    with pytest.raises(DownloadError):
        fetch(server, tmp_path)
    assert (tmp_path / NAME).read_bytes() == damaged
    done = fetch(server, tmp_path)
    assert (done.fetched, done.replaced, done.present) == (0, 1, 7)
    assert_is_right(server, tmp_path)


def test_a_file_that_stays_wrong_is_named_and_the_others_arrive(server: Server, tmp_path: Path) -> None:
    server.files[f"{ROOT}/{NAME}"] = b"something else"
    with pytest.raises(DownloadError) as caught:
        fetch(server, tmp_path)
    assert f"{NAME}: expected SHA-256 {sha256(content_of(NAME))}, but got {sha256(b'something else')}" in str(
        caught.value
    )
    assert f"7 of 8 files are in {tmp_path} and right" in str(caught.value)
    assert len(list(tmp_path.glob("*.edf"))) == 5
    assert not list(tmp_path.rglob("*.part"))
    assert server.asked()[f"{ROOT}/{NAME}"] == 3


@pytest.mark.parametrize(("code", "tries"), [(404, 1), (403, 1), (500, 3), (429, 3)])
def test_a_file_that_the_server_refuses_is_named(code: int, tries: int, server: Server, tmp_path: Path) -> None:
    server.misbehaviours[f"{ROOT}/{NAME}"] = [status(code)] * 3
    with pytest.raises(DownloadError, match=rf"(?s)1 files could not be had.*{NAME}.*HTTP {code}.*7 of 8 files"):
        fetch(server, tmp_path)
    assert server.asked()[f"{ROOT}/{NAME}"] == tries


def test_a_server_that_has_nothing_is_not_asked_for_everything(server: Server, tmp_path: Path) -> None:
    publish(server, {f"Subject{number}_1.edf": b"x" for number in range(500)})
    for path in [path for path in server.files if not path.endswith("SUMS.txt")]:
        del server.files[path]
    with pytest.raises(DownloadError, match="and 5 more"):
        fetch(server, tmp_path)
    assert len(server.requests) < 100


def test_large_pieces_count_as_progress(server: Server, tmp_path: Path) -> None:
    """More breaks than attempts are allowed, each after a megabyte: a bad line, not a bad server."""
    publish(server, {NAME: content_of(NAME, 6 * PROGRESS_BYTES)})
    server.misbehaviours[f"{ROOT}/{NAME}"] = [drop_after(PROGRESS_BYTES)] * 5
    assert fetch(server, tmp_path).fetched == 1
    assert server.asked()[f"{ROOT}/{NAME}"] == 6


def test_more_than_any_file_of_the_set_can_be_is_not_swallowed(server: Server, tmp_path: Path) -> None:
    with Client(f"{server.url}{ROOT}", retries=FAST) as client, pytest.raises(DownloadError, match="more than 100000"):
        client.file(NAME, sha256(content_of(NAME)), tmp_path / NAME, max_bytes=100_000)
    assert not list(tmp_path.iterdir())


def test_a_server_may_ask_to_wait(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(Client, "_sleep", lambda client, seconds: waited.append(seconds))
    server.misbehaviours[f"{ROOT}/{NAME}"] = [status(429, Retry_After="4"), status(503, Retry_After="nonsense")]
    assert fetch(server, tmp_path).fetched == 8
    assert waited[0] == 4
    assert 0 < waited[1] < 0.1
    server.misbehaviours[f"{ROOT}/SHA256SUMS.txt"] = [status(429, Retry_After="3600")]
    with pytest.raises(DownloadError, match="asks to come back in 3600 s"):
        fetch(server, tmp_path)


def test_the_wait_may_be_a_date() -> None:
    assert retry_after_s("7") == 7
    assert retry_after_s("") == 0
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after_s("Wed, 21 Oct 2515 07:28:00 GMT") > 1e9


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with serving() as server:
        pass
    with pytest.raises(DownloadError, match=r"no connection.*3 attempts in a row failed"):
        fetch(server, tmp_path)


def test_stopping_keeps_what_has_arrived(server: Server, tmp_path: Path) -> None:
    stop = threading.Event()
    seen: list[int] = []

    def received(num_bytes: int) -> None:
        seen.append(num_bytes)
        stop.set()

    with (
        Client(f"{server.url}{ROOT}", stop=stop, received=received) as client,
        pytest.raises(Stopped),
    ):
        client.file(NAME, sha256(content_of(NAME)), tmp_path / NAME, max_bytes=10**6)
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [65_536]


@pytest.mark.parametrize("path", ["../evil.edf", "a/../../evil.edf", "/tmp/evil.edf", "..\\evil.edf", "C:evil.edf"])
def test_a_list_that_leaves_the_folder_is_refused(path: str, server: Server, tmp_path: Path) -> None:
    server.files[f"{ROOT}/SHA256SUMS.txt"] += f"{sha256(b'evil')} {path}\n".encode()
    with pytest.raises(SourceError, match=r"SHA256SUMS.txt: line 9: the path .* leads out of the folder"):
        fetch(server, tmp_path / "folder")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("listed", [b"<html>Please log in</html>", b"", b"\xff\xfe"])
def test_something_else_than_a_list(listed: bytes, server: Server, tmp_path: Path) -> None:
    server.files[f"{ROOT}/SHA256SUMS.txt"] = listed
    with pytest.raises((SourceError, DownloadError), match="expected"):
        fetch(server, tmp_path)


def test_plain_http_is_for_this_machine(server: Server, tmp_path: Path) -> None:
    for url in ("https://physionet.org/files", "http://localhost:80/files", "http://127.0.0.1/", "http://[::1]:8000/"):
        check_url(url)
    for url in ("http://physionet.org/files", "http://localhost.example.org/", "ftp://physionet.org", "physionet.org"):
        with pytest.raises(DownloadError, match="expected https"):
            check_url(url)
    server.misbehaviours[f"{ROOT}/{NAME}"] = [status(302, Location="http://192.0.2.1/secret")]
    with pytest.raises(DownloadError, match=r"http://192.0.2.1/secret: plain http is for this machine only"):
        fetch(server, tmp_path)


def test_a_folder_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DownloadError, match="cannot be written"):
        fetch(server, tmp_path / "file")


def test_a_copy_of_eegmat_is_usable_at_once(
    test_data: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["Subject00_1.edf", "Subject00_2.edf", "Subject01_1.edf", "Subject01_2.edf", "RECORDS", "README.txt"]
    published = (test_data / "eegmat" / "SHA256SUMS.txt").read_text().splitlines()
    listed = [line for line in published if line.split()[1] in names]
    assert len(listed) == len(names)
    server.files = {f"{ROOT}/{name}": (test_data / "eegmat" / name).read_bytes() for name in names}
    server.files[f"{ROOT}/SHA256SUMS.txt"] = "\n".join(listed).encode()
    server.misbehaviours[f"{ROOT}/Subject00_1.edf"] = [drop_after(2_000_000), corrupted]
    monkeypatch.setenv(URL_VARIABLE, f"{server.url}/files/")
    main(["download", "workload", str(tmp_path)])
    said = capsys.readouterr().out
    assert "6 files fetched, 0 replaced, 0 already there" in said
    assert f"use it: data.root={tmp_path}" in said

    workload = LAYOUTS["workload"]
    sources = workload.find(tmp_path)
    assert [source.recording for source in sources] == names[:4]
    windows, dropped = workload.windows(sources[0], workload.read(sources[0]))
    assert (len(windows), sum(dropped.values())) == (29, 0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tuab", r"(?s)tuab: .*nedc.*edf/\{train,eval\}/\{normal,abnormal\}"),
        ("tuev", r"(?s)tuev: .*nedc.*\.rec"),
        ("tusl", r"(?s)tusl: .*nedc.*tse_agg"),
        ("tueg", r"(?s)tueg: .*nedc.*edf"),
        ("seed", r"(?s)seed: .*bcmi.*\.cnt"),
        ("workloads", "no such data set; did you mean 'workload'"),
    ],
)
def test_sets_that_are_not_downloaded(
    name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["download", name, str(tmp_path / "folder")])
    assert caught.value.code == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "folder").exists()


def test_numbers_that_make_no_sense(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--subjects", "--connections"):
        with pytest.raises(SystemExit):
            main(["download", "workload", str(tmp_path), option, "0"])
        assert f"0 {option[2:]} were asked for; expected 1 or more" in capsys.readouterr().err
