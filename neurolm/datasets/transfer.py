"""One file over HTTP, whatever the connection does: continued where it broke off, checked, thrown away if it is wrong.

Bytes are collected beside the target in ``<name>.<start of the SHA-256>.part``; the target appears whole and right, or
not at all. What decides is the published checksum, not the server's word: a file that has changed on the server, a
range that was answered wrongly and a flipped bit all end as another SHA-256, and begin anew.
"""

import glob
import hashlib
import os
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self, cast
from urllib.parse import quote

import requests

from neurolm.datasets.https import DownloadError, check_url, https_session, retry_after_s

CHUNK_BYTES = 2**16
PROGRESS_BYTES = 2**20
"""An attempt that brought so much before it broke is no failure: a bad line may break a large file many times."""
MAX_WRONG = 3
"""So often a file may arrive whole and wrong."""
MAX_LIST_BYTES = 2**26
CONNECT_S, READ_S = 15.0, 60.0
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


class FileError(DownloadError):
    """One file that cannot be had, or stays wrong; others may be fine."""


class Stopped(Exception):
    """Somebody else asked to stop."""


class _Broken(Exception):
    """An attempt that may go better the next time."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s
        """How long the server asks us to wait, in seconds."""


class _NoConnection(_Broken):
    """An attempt that did not reach the server: it will fail for other files too."""


@dataclass(frozen=True)
class Retries:
    """How often to try again, and how long to wait before it."""

    attempts: int = 8
    """Attempts in a row that bring nothing before we give up."""
    first_s: float = 0.5
    """Wait before the second attempt in seconds; doubled with each, and drawn from 0.5 to 1 times that."""
    longest_s: float = 30.0
    """The longest wait of our own choice, in seconds."""
    patience_s: float = 600.0
    """The longest wait that a server may ask for (Retry-After), in seconds."""


class Client:
    """Fetches files below one URL, from any number of threads; a context that closes its connections at the end.

    Raises:
        DownloadError: the URL is neither https nor http on this machine.
    """

    def __init__(
        self,
        url: str,
        *,
        retries: Retries | None = None,
        stop: threading.Event | None = None,
        received: Callable[[int], None] = lambda num_bytes: None,
    ) -> None:
        check_url(url)
        self.url = url.rstrip("/")
        self._retries = retries or Retries()
        self._stop = stop or threading.Event()
        self._received = received
        self._local, self._sessions = threading.local(), list[requests.Session]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        for session in self._sessions:
            session.close()

    def text(self, path: str) -> str:
        """A small text file, unchecked. Raises DownloadError."""
        content = bytearray()

        def attempt() -> None:
            content.clear()
            with self._get(path, {}) as response:
                for chunk in self._body(response, MAX_LIST_BYTES):
                    content.extend(chunk)

        self._insist(path, attempt, lambda: 0)
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise DownloadError(f"{self._url_of(path)}: expected a text file, found other bytes") from None

    def file(self, path: str, sha256: str, target: Path, *, max_bytes: int) -> None:
        """Put a file at ``target``; bytes of an earlier attempt are continued.

        Raises:
            FileError: the server does not have it, or it stays wrong.
            DownloadError: the server cannot be reached or used.
            Stopped: the stop event was set; what has arrived stays for the next time.
        """
        part = target.with_name(f"{target.name}.{sha256[:16]}.part")
        for other in target.parent.glob(f"{glob.escape(target.name)}.*.part"):
            if other != part:
                other.unlink()  # of a version with another checksum
        found: list[str] = []
        while len(found) < MAX_WRONG:
            self._insist(path, lambda: self._continue(path, part, max_bytes), lambda: _size(part))
            found.append(file_sha256(part))
            if found[-1] == sha256:
                os.replace(part, target)
                return
            part.unlink()
            self._sleep(self._delay_s(len(found)))
        raise FileError(
            f"{path}: expected SHA-256 {sha256}, but got {', '.join(sorted(set(found)))} in {MAX_WRONG} tries"
        )

    def _continue(self, path: str, part: Path, max_bytes: int) -> None:
        """One attempt to bring ``part`` to its end. Raises _Broken."""
        have = _size(part)
        with self._get(path, {"Range": f"bytes={have}-"} if have else {}) as response:
            if response.status_code == 416:
                return  # nothing beyond what we have, says the server: the checksum will tell
            is_continued = response.status_code == 206  # a server without ranges sends everything again
            if is_continued and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                part.unlink(missing_ok=True)
                raise _Broken(f"another range was sent than bytes {have}-")
            try:
                with part.open("ab" if is_continued else "wb") as file:
                    for chunk in self._body(response, max_bytes - file.tell()):
                        file.write(chunk)
            except FileError:
                part.unlink()
                raise

    def _get(self, path: str, headers: dict[str, str]) -> requests.Response:
        """A response that holds content, or 416 to a range. Raises _Broken, FileError or DownloadError."""
        url = self._url_of(path)
        try:
            response = self._session.get(url, headers=headers, stream=True, timeout=(CONNECT_S, READ_S))
        except requests.exceptions.SSLError as error:
            raise DownloadError(f"{url}: the server's certificate is not trusted ({error})") from None
        except (requests.ConnectionError, requests.Timeout) as error:
            raise _NoConnection(f"no connection ({error})") from None
        except requests.RequestException as error:
            raise DownloadError(f"{url}: {error}") from None
        status = response.status_code
        if status in (200, 206) or (status == 416 and headers):
            return response
        response.close()
        if status in TRANSIENT:
            raise _Broken(f"HTTP {status} {response.reason}", retry_after_s(response.headers.get("Retry-After", "")))
        raise FileError(f"{path}: the server answered HTTP {status} {response.reason} for {url}")

    def _body(self, response: requests.Response, max_bytes: int) -> Iterator[bytes]:
        """The content in chunks. Raises _Broken if it ends early, FileError if it does not end."""
        count = 0
        try:
            for chunk in response.iter_content(CHUNK_BYTES):
                if self._stop.is_set():
                    raise Stopped
                count += len(chunk)
                if count > max_bytes:
                    raise FileError(f"{response.url}: more than {max_bytes} bytes were sent")
                self._received(len(chunk))
                yield chunk
        except requests.RequestException as error:
            raise _Broken(f"broke off after {count} bytes ({error})") from None
        announced = response.headers.get("Content-Length", "")
        if announced.isdecimal() and count < int(announced) and "Content-Encoding" not in response.headers:
            raise _Broken(f"broke off after {count} of {announced} bytes")

    def _insist(self, path: str, attempt: Callable[[], None], size: Callable[[], int]) -> None:
        """Try until it works. Raises FileError or DownloadError after too many attempts that brought nothing."""
        failures = 0
        while True:
            before = size()
            try:
                return attempt()
            except _Broken as broken:
                failures = 1 if size() - before >= PROGRESS_BYTES else failures + 1
                if broken.wait_s > self._retries.patience_s:
                    raise DownloadError(
                        f"{self._url_of(path)}: {broken}; the server asks to come back in {broken.wait_s:.0f} s"
                    ) from None
                if failures >= self._retries.attempts:
                    kind = DownloadError if isinstance(broken, _NoConnection) else FileError
                    tries = f"{failures} attempts in a row failed; the same command continues"
                    raise kind(f"{self._url_of(path)}: {broken}; {tries}") from None
                self._sleep(max(broken.wait_s, self._delay_s(failures)))

    def _delay_s(self, failures: int) -> float:
        longest_s = min(self._retries.longest_s, self._retries.first_s * 2 ** (failures - 1))
        return longest_s * random.uniform(0.5, 1.0)  # not all connections at the same moment

    def _sleep(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Stopped

    def _url_of(self, path: str) -> str:
        return f"{self.url}/{quote(path)}"

    @property
    def _session(self) -> requests.Session:
        if not hasattr(self._local, "session"):
            self._local.session = https_session(self.url)
            self._sessions.append(self._local.session)
        return cast(requests.Session, self._local.session)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
