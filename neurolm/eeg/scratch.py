"""Arrays that may not fit into memory: written piece by piece, then read as plain arrays.

Large ones lie in a file in the system's folder for temporary files (``TMPDIR``). The file has no name from the start,
so nothing of a recording outlives the process, however it ends.
"""

import mmap
import os
import tempfile
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

WHOLE_BYTES = 512 * 2**20
"""Arrays up to this size are held in memory."""


def fits_memory(num_rows: int, num_columns: int, dtype: DTypeLike) -> bool:
    """Whether an array is small enough to be held in memory."""
    return num_rows * num_columns * np.dtype(dtype).itemsize <= WHOLE_BYTES


class ScratchArray:
    """A [rows, columns] array, on disk where it is large. Every part is written once; then `array` reads it."""

    def __init__(self, num_rows: int, num_columns: int, dtype: DTypeLike) -> None:
        if fits_memory(num_rows, num_columns, dtype):
            self._array = np.empty((num_rows, num_columns), dtype)
            return
        num_bytes = num_rows * num_columns * np.dtype(dtype).itemsize
        with tempfile.TemporaryFile(prefix="neurolm-") as file:
            os.posix_fallocate(file.fileno(), 0, num_bytes)  # a full disk is told now
            mapped = mmap.mmap(file.fileno(), num_bytes)
        self._array = np.frombuffer(mapped, dtype).reshape(num_rows, num_columns)

    def write(self, row: int, column: int, block: NDArray[Any]) -> None:
        """Put a block [rows, columns] at a place."""
        self._array[row : row + block.shape[0], column : column + block.shape[1]] = block
        release(self._array)

    def array(self) -> NDArray[Any]:
        """The array; of one on disk, pages are read as they are needed and `release` lets go of them."""
        return self._array


def release(array: NDArray[Any]) -> None:
    """Free the memory of what was read or written of an array on disk; it is read again where it is needed."""
    if (mapped := on_disk(array)) is not None:
        mapped.madvise(mmap.MADV_DONTNEED)


def on_disk(array: NDArray[Any]) -> mmap.mmap | None:
    """The mapped file that holds an array or the one it is a view of; None for an array in memory."""
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, memoryview):
        owner = owner.obj
    return owner if isinstance(owner, mmap.mmap) else None
