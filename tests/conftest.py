"""Where tests find real recordings and recorded arrays; both may be absent."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1]

# On a machine that does something else too, an example takes as long as it takes.
settings.register_profile("neurolm", deadline=None)
settings.load_profile("neurolm")


def _folder(variable: str, default: str) -> Path:
    path = Path(os.environ.get(variable, ROOT / default)).resolve()
    if not path.is_dir():
        pytest.skip(f"{variable}={path} is not there: nothing to test with")
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
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One local Ray cluster for the whole test run, with token authentication as shipped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("NEUROLM_HOME", str(tmp_path_factory.mktemp("home")))
        from neurolm.distributed.jobs import ray_session

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ray's own, while it starts
            with ray_session():
                yield


@pytest.fixture(scope="session")
def demo_recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic recordings of six subjects in the layouts of Workload and HMC, one of them broken."""
    from neurolm.datasets.synthetic import write_demo_recordings

    root = tmp_path_factory.mktemp("recordings")
    write_demo_recordings(root, num_subjects=6)
    return root
