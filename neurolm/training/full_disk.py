"""A checkpoint or a model that cannot be written, in words that say what to do."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neurolm.config import UserError

FULL_BYTES = 2**20
"""A disk with less room than this is called full."""
FULL_WORDS = ("no space left", "quota exceeded", "file too large", "failed writing file", "unexpected pos")
"""How libraries that hide the system's error say that a disk is full."""


class CheckpointError(UserError):
    """There are checkpoints and none of them is whole, or one cannot be written."""


@contextmanager
def clear_about_space(what: str, folder: Path, num_bytes: int | None = None) -> Iterator[None]:
    """Say what could not be written, and what to do, where a disk is full or a storage fails.

    Libraries report a full disk in their own ways; an error beside a disk without room is taken for it.

    Raises:
        CheckpointError: in place of such an error; others pass.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        free = _free_bytes(folder)
        is_full = (
            (free is not None and free < FULL_BYTES)
            or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            or any(words in str(error).lower() for words in FULL_WORDS)
        )
        if not is_full and not isinstance(error, OSError):
            raise
        needed = f"; it takes about {num_bytes / 1e6:.1f} MB" if num_bytes else ""
        reason = _first_line(error)
        if free is not None and free < FULL_BYTES:
            reason = f"no space left in {folder}, {free / 1e6:.1f} MB are free"
        todo = "make room there" if is_full else "see that the storage can be reached and written"
        raise CheckpointError(
            f"{what}: cannot be written ({reason}){needed}. The checkpoint before it is untouched: "
            f"{todo}, or copy the run's checkpoints elsewhere and set checkpoints.storage, then start the run again"
        ) from error


def _free_bytes(folder: Path) -> int | None:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free if folder.is_absolute() else None
    except OSError:
        return None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
