import gc
import os
from pathlib import Path

import numpy as np
import pytest

from neurolm.eeg import scratch
from neurolm.eeg.scratch import ScratchArray, fits_memory, on_disk, release


@pytest.mark.parametrize("whole_bytes", [10**6, 100])
def test_array_is_what_was_written(whole_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "WHOLE_BYTES", whole_bytes)
    expected = np.random.default_rng(0).normal(size=(5, 70)).astype(np.float32)
    array = ScratchArray(5, 70, np.float32)
    for row, column in ((0, 0), (0, 30), (2, 30), (2, 0)):
        rows, columns = slice(row, row + 2 if row == 0 else 5), slice(column, column + (30 if column == 0 else 40))
        array.write(row, column, expected[rows, columns].astype(np.float64))
    result = array.array()
    np.testing.assert_array_equal(result, expected)
    release(result[1:3, 10:])
    np.testing.assert_array_equal(result, expected)


def open_files(folder: Path) -> list[str]:
    """Files of a folder that this process has open or mapped, deleted ones too."""
    links = [*Path("/proc/self/fd").iterdir(), *Path("/proc/self/map_files").iterdir()]
    targets = [os.readlink(link) for link in links if os.path.lexists(link)]
    return [target for target in targets if target.startswith(str(folder))]


def test_a_large_array_has_no_file_name_and_is_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "WHOLE_BYTES", 100)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    array = ScratchArray(2, 1000, np.float64)
    array.write(0, 0, np.ones((2, 1000)))
    result = array.array()
    assert on_disk(result[1:])
    assert list(tmp_path.iterdir()) == []
    assert open_files(tmp_path)
    del array, result
    gc.collect()
    assert open_files(tmp_path) == []


def test_a_full_disk_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "WHOLE_BYTES", 100)
    with pytest.raises(OSError):
        ScratchArray(2**20, 2**35, np.float64)


def test_size_counts() -> None:
    assert fits_memory(64, 10**6, np.float64)
    assert not fits_memory(64, 2 * 10**6, np.float64)
    assert fits_memory(64, 2 * 10**6, np.float32)
