"""Which code and packages are running."""

import hashlib
import importlib.metadata
import logging
import os
import re
import subprocess
from pathlib import Path

log = logging.getLogger(__name__)

COMMIT_VARIABLE = "NEUROLM_GIT_COMMIT"


def packages_digest() -> str:
    """A digest of the names and versions of all installed packages."""
    names = {f"{one.metadata['Name']}=={one.version}".lower() for one in importlib.metadata.distributions()}
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16]


def is_dirty() -> bool | None:
    """Whether the repository of this code has changes that are not committed; None where there is none."""
    here = Path(__file__).resolve()
    if _git(here, "ls-files", "--error-unmatch", here.name) is None:
        return None
    return bool(_git(here, "status", "--porcelain", "--untracked-files=no"))


def git_commit() -> str | None:
    """The commit of the running code: from ``NEUROLM_GIT_COMMIT``, else from git, else None with a warning.

    Ray leaves ``.git`` out of an uploaded working directory, so a job's commit must come from the variable.
    """
    given = os.environ.get(COMMIT_VARIABLE, "").strip()
    if re.fullmatch(r"[0-9a-f]{7,64}", given):
        return given
    if given:
        log.warning("%s=%r is no commit (expected 7 to 64 hexadecimal digits); asking git", COMMIT_VARIABLE, given)
    here = Path(__file__).resolve()
    # Only a repository that tracks this file is ours: an environment may lie inside somebody else's.
    if _git(here, "ls-files", "--error-unmatch", here.name) is None:
        log.warning(
            "The code's commit is unknown and results will say null; set %s=$(git rev-parse HEAD)", COMMIT_VARIABLE
        )
        return None
    commit = _git(here, "rev-parse", "HEAD")
    if commit and _git(here, "status", "--porcelain", "--untracked-files=no"):
        log.warning("The code has changes that are not committed; results will name commit %s", commit[:12])
    return commit


def _git(file: Path, *arguments: str) -> str | None:
    """What git prints in the file's folder, or None where git, a repository or the answer is missing."""
    command = ["git", "-C", str(file.parent), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
