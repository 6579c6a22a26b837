"""Hours of 64 channels become a shard in less memory than their signals would take."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from neurolm.datasets.dataset import SourceFile
from neurolm.datasets.motor_imagery import MotorImagery
from neurolm.eeg.preprocessing import PreprocessingConfig, preprocess
from tests.eeg.edf import write_long_edf

_PROGRAM = """
import sys
from pathlib import Path
from neurolm.datasets.ingest import run_locally, write_store
from neurolm.datasets.dataset import SourceFile
from neurolm.datasets.motor_imagery import MotorImagery
from neurolm.datasets.plan import ShardPlan
from neurolm.eeg.preprocessing import PreprocessingConfig
from neurolm.resident_memory import peak_resident_bytes

path, store, dtype = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
source = SourceFile(path, path.name, "S001")
shard = store / "train-motor_imagery-all.parquet"
plan = ShardPlan(shard, "train", "motor_imagery", MotorImagery(), (source,), PreprocessingConfig(), b"k" * 32, dtype)
manifest = write_store([plan], store, run_locally)
assert not manifest.quarantined, manifest.quarantined
print(peak_resident_bytes() // 2**20)
"""


def peak_mib(path: Path, store: Path, signal_dtype: str) -> int:
    """Peak resident memory of the process that makes a store of one recording; its scratch files lie beside it."""
    result = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(path), str(store), signal_dtype],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(store.parent)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return int(result.stdout.split()[-1])


@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("hours", "most_mib"),
    [pytest.param(3, 768, marks=pytest.mark.slow), pytest.param(24, 2048, marks=pytest.mark.xl)],
)
def test_hours_of_64_channels_take_less_memory_than_their_signals(tmp_path: Path, hours: int, most_mib: int) -> None:
    if shutil.disk_usage(tmp_path).free < 1.5 * hours * 2**30:
        pytest.skip(f"needs {1.5 * hours:.0f} GiB of disk")
    names = MotorImagery().channels
    path = write_long_edf(tmp_path / "S001R01.edf", names, duration_s=3600 * hours, sampling_rate_hz=256)
    peak = peak_mib(path, tmp_path / "store", "float32")
    print(f"{path.stat().st_size / 2**30:.2f} GiB of EDF: peak {peak} MiB")
    metadata = pq.read_metadata(tmp_path / "store" / "train-motor_imagery-all.parquet")
    assert metadata.num_rows == 3600 * hours // 16
    assert all(
        16 <= metadata.row_group(group).total_byte_size / 2**20 <= 64 for group in range(metadata.num_row_groups)
    )
    assert peak < most_mib
    shutil.rmtree(tmp_path)


def test_long_and_short_ways_give_the_same_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = MotorImagery().channels
    path = write_long_edf(tmp_path / "S001R01.edf", names, duration_s=100, sampling_rate_hz=160)
    dataset = MotorImagery()
    source = SourceFile(path, path.name, "S001")

    def windows() -> list[np.ndarray]:
        recording = preprocess(dataset.read(source), PreprocessingConfig(), dataset.mains_hz)
        return [window.signal for window in dataset.windows(source, recording)[0]]

    whole = windows()
    monkeypatch.setattr("neurolm.eeg.scratch.WHOLE_BYTES", 1000)
    monkeypatch.setattr("neurolm.eeg.containers.PIECE_BYTES", 100_000)
    for one, other in zip(whole, windows(), strict=True):
        np.testing.assert_array_equal(one, other)
