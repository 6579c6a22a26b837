"""Where tests find real recordings and recorded arrays; both may be absent."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _folder(variable: str, default: str) -> Path:
    path = Path(os.environ.get(variable, ROOT / default)).resolve()
    if not path.is_dir():
        pytest.skip(f"{variable}={path} is not there: no recordings to test with")
    return path


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Real recordings (NEUROLM_TEST_DATA, default ../shared/data)."""
    return _folder("NEUROLM_TEST_DATA", "../shared/data")


@pytest.fixture(scope="session")
def golden() -> Path:
    """Recorded inputs and outputs of the released code (NEUROLM_GOLDEN, default ../shared/golden)."""
    return _folder("NEUROLM_GOLDEN", "../shared/golden")


@pytest.fixture(autouse=True)
def neurolm_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep keys and the ledger of test openings of a test run out of the user's home."""
    monkeypatch.setenv("NEUROLM_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="session")
def demo_recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic EDF files: three subjects each in ``workload/`` and ``sleep/``, and one broken workload file."""
    from neurolm.datasets.synthetic import write_demo_recordings

    folder = tmp_path_factory.mktemp("recordings")
    write_demo_recordings(folder, num_subjects=3, seed=1)
    return folder
