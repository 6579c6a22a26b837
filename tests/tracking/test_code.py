"""The commit is that of the code which runs."""

import logging
import subprocess
from pathlib import Path

import pytest

from neurolm.tracking import code as module
from neurolm.tracking.code import git_commit


def test_a_job_is_told_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROLM_GIT_COMMIT", "0123456789abcdef0123456789abcdef01234567\n")
    assert git_commit() == "0123456789abcdef0123456789abcdef01234567"


def test_the_commit_comes_from_the_repository_that_tracks_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NEUROLM_GIT_COMMIT", "")
    file = tmp_path / "results.py"
    file.write_text("1\n")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    subprocess.run([*git, "init", "-q"], check=True)
    monkeypatch.setattr(module, "__file__", str(file))
    assert git_commit() is None and "NEUROLM_GIT_COMMIT" in caplog.text  # not tracked: not ours

    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "a"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    caplog.clear()
    assert git_commit() == head and not caplog.records
    file.write_text("2\n")
    assert git_commit() == head and "not committed" in caplog.text


def test_without_git_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("NEUROLM_GIT_COMMIT", "main")
    monkeypatch.setenv("PATH", "")
    with caplog.at_level(logging.WARNING):
        assert git_commit() is None
    assert "'main' is no commit" in caplog.text
