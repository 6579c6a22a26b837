"""Download an open data set as PhysioNet publishes it; what is there and right is left, the same command continues."""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from neurolm.datasets.https import DownloadError
from neurolm.datasets.sources import SUMS, OpenSet, SourceError, of_first_subjects, parse_sums
from neurolm.datasets.transfer import Client, FileError, Retries, file_sha256
from neurolm.progress import Bar

PHYSIONET_URL = "https://physionet.org/files"
URL_VARIABLE = "NEUROLM_PHYSIONET_URL"
"""Environment variable that names a mirror instead."""

Outcome = Literal["fetched", "replaced", "present"]
SHOWN = 5
MAX_WRONG_FILES = 10
"""After so many files in a row that cannot be had, the others are not tried."""


@dataclass(frozen=True)
class Downloaded:
    """What a finished download did, in files."""

    fetched: int
    """Files that were not there."""
    replaced: int
    """Files that were there with other content."""
    present: int
    """Files that were there and right."""
    num_bytes: int
    """Bytes that came over the network, those thrown away included."""


def download(
    source: OpenSet,
    folder: Path,
    *,
    base_url: str | None = None,
    num_subjects: int | None = None,
    connections: int = 4,
    retries: Retries | None = None,
) -> Downloaded:
    """Bring ``folder`` to hold every file of the set, checked against its published SHA-256.

    A file that is there with other content is replaced when the right one has arrived, not before.

    Args:
        source: the set.
        folder: where its files go, in the published layout; made if missing.
        base_url: what stands before ``/<slug>/<version>/``; default: NEUROLM_PHYSIONET_URL, else PhysioNet.
        num_subjects: only the first so many subjects, and the files that belong to none.
        connections: files that are fetched at the same time.
        retries: patience with the server.

    Raises:
        SourceError: the list of files is none, or would write outside the folder.
        DownloadError: the server cannot be used, files cannot be had or stay wrong (named, with what was expected), or
            the folder cannot be written.
    """
    for count, what in ((num_subjects, "subjects"), (connections, "connections")):
        if count is not None and count < 1:
            raise SourceError(f"{count} {what} were asked for; expected 1 or more")
    base_url = base_url or os.environ.get(URL_VARIABLE) or PHYSIONET_URL
    url = f"{base_url.rstrip('/')}/{source.slug}/{source.version}"
    stop, progress = threading.Event(), _Progress()
    try:
        with Client(url, retries=retries, stop=stop, received=progress.received) as client:
            listed = client.text(SUMS)
            sums = parse_sums(listed, f"{url}/{SUMS}")
            if num_subjects is not None:
                sums = of_first_subjects(sums, source, num_subjects)
            progress.num_files = len(sums)

            def one(path: str) -> Outcome:
                outcome = _one(client, path, sums[path], folder / path, max_bytes=int(2e9 * source.size_gb))
                progress.finished()
                return outcome

            outcomes, wrong = _all(one, list(sums), connections, stop)
        if wrong:
            more = [f"and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else []
            raise DownloadError(
                "\n  ".join([f"{len(wrong)} files could not be had from {url}:", *wrong[:SHOWN], *more])
                + f"\n{len(outcomes)} of {len(sums)} files are in {folder} and right; the same command continues. "
                "If it is the server's fault, name another with --base-url"
            )
        (folder / SUMS).write_text(listed)
    except OSError as error:
        raise DownloadError(f"{folder}: cannot be written ({error}); make room or choose another folder") from None
    finally:
        progress.close()
    return Downloaded(
        outcomes.count("fetched"), outcomes.count("replaced"), outcomes.count("present"), progress.num_bytes
    )


def _one(client: Client, path: str, sha256: str, target: Path, *, max_bytes: int) -> Outcome:
    existed = target.exists()
    if existed and file_sha256(target) == sha256:
        return "present"
    target.parent.mkdir(parents=True, exist_ok=True)
    client.file(path, sha256, target, max_bytes=max_bytes)
    return "replaced" if existed else "fetched"


def _all(
    one: Callable[[str], Outcome], paths: list[str], connections: int, stop: threading.Event
) -> tuple[list[Outcome], list[str]]:
    """The outcomes, and what was wrong with files that cannot be had. Any other error ends all transfers."""
    outcomes: list[Outcome] = []
    wrong: list[str] = []
    in_a_row = 0
    executor = ThreadPoolExecutor(connections, thread_name_prefix="download")
    try:
        for future in as_completed([executor.submit(one, path) for path in paths]):
            try:
                outcomes.append(future.result())
                in_a_row = 0
            except FileError as error:
                wrong.append(str(error))
                in_a_row += 1
            if in_a_row == MAX_WRONG_FILES:
                break
    finally:
        stop.set()
        executor.shutdown(cancel_futures=True)
    return outcomes, sorted(wrong)


class _Progress:
    """Files and bytes so far, drawn as a bar, from any thread."""

    def __init__(self) -> None:
        self.num_files, self.num_bytes = 0, 0
        self._done, self._began_s = 0, time.monotonic()
        self._lock, self._bar = threading.Lock(), Bar("download")

    def received(self, num_bytes: int) -> None:
        """More bytes came."""
        with self._lock:
            self.num_bytes += num_bytes
            self._draw()

    def finished(self) -> None:
        """One more file is there and right."""
        with self._lock:
            self._done += 1
            self._draw()

    def close(self) -> None:
        """Leave the bar on the screen."""
        with self._lock:
            self._bar.close()

    def _draw(self) -> None:
        megabytes = self.num_bytes / 1e6
        speed = megabytes / max(time.monotonic() - self._began_s, 1e-3)
        numbers = {"files": f"{self._done}/{self.num_files}", "MB": f"{megabytes:.1f}", "MB/s": f"{speed:.1f}"}
        self._bar.show(self._done / self.num_files if self.num_files else None, numbers)
