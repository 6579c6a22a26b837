"""The test split stays closed until somebody opens it on purpose; every opening is written down and counted."""

import fcntl
import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from neurolm.config import UserError
from neurolm.eeg.privacy import home

LEDGER = "test_openings.jsonl"
_TOKEN = object()


class SealedSplitError(UserError):
    """Somebody reached for test windows without opening the test split."""


class TestOpening:
    """The right to read one data digest's test split; only `open_test_split` makes one."""

    __test__ = False  # not a test case, whatever its name makes pytest think

    def __init__(self, data_digest: str, count: int, token: object) -> None:
        if token is not _TOKEN:
            raise TypeError("a TestOpening is made by open_test_split only, which counts it")
        self.data_digest = data_digest
        self.count = count
        """All openings of this data digest so far, this one included."""


def open_test_split(data_digest: str, reason: str) -> TestOpening:
    """Open the test split of the data with this digest, and write that down in ``test_openings.jsonl`` of `home`.

    The count goes by digest, so another output folder or a rebuilt store does not hide earlier openings.
    """
    entry = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "data_digest": data_digest,
        "reason": reason,
        "git_commit": _git_commit(),
    }
    with (home() / LEDGER).open("a+") as ledger:
        fcntl.flock(ledger, fcntl.LOCK_EX)
        ledger.write(json.dumps(entry) + "\n")
        ledger.flush()
        os.fsync(ledger.fileno())
        count = _count(ledger.name, data_digest)
    return TestOpening(data_digest, count, _TOKEN)


def count_openings(data_digest: str) -> int:
    """How often the test split with this digest was opened on this machine."""
    path = home() / LEDGER
    return _count(path, data_digest) if path.exists() else 0


def _count(path: str | Path, data_digest: str) -> int:
    with open(path) as ledger:
        return sum(json.loads(line)["data_digest"] == data_digest for line in ledger if line.strip())


def _git_commit() -> str | None:
    """The commit of the code, or None outside a repository; a job's working directory has no .git."""
    if commit := os.environ.get("NEUROLM_GIT_COMMIT"):
        return commit
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return result.stdout.strip() or None if result.returncode == 0 else None
