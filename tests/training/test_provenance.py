"""A run says with which code and packages it was made, and not by whom."""

import getpass
import platform
from pathlib import Path

import pytest

from neurolm.tracking.code import packages_digest
from neurolm.training.context import LocalContext
from neurolm.training.provenance import provenance


def test_a_run_tells_code_and_environment_and_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROLM_GIT_COMMIT", "0123456")
    found = provenance(LocalContext())
    assert found["code.commit"] == "0123456"
    assert found["environment.workers"] == 1 and found["environment.device"] == "cpu"
    assert found["environment.torch"] and found["environment.python"] == platform.python_version()
    assert found["environment.packages_digest"] == packages_digest()
    told = " ".join(map(str, found.values()))
    assert platform.node() not in told and getpass.getuser() not in told and str(Path.home()) not in told
