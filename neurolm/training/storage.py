"""Where files of a run can lie: a folder of this machine, or an address that pyarrow or fsspec can open."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from neurolm.config import UserError

CHUNK_BYTES = 16 * 2**20
"""Read and written at a time."""


class StorageError(UserError):
    """An address that cannot be opened as a folder."""


def open_storage(place: str) -> tuple[fs.FileSystem, str]:
    """The file system of a folder's path or URI, and the folder's path there.

    pyarrow opens ``file://``, ``s3://``, ``gs://`` and ``hdfs://``; fsspec, where it knows the scheme, the others.

    Raises:
        StorageError: nothing opens such an address, or it has a password in it.
    """
    if "://" not in place:
        return fs.LocalFileSystem(), Path(place).absolute().as_posix()
    if "@" in urlsplit(place).netloc:
        raise StorageError(
            f"{urlsplit(place).scheme}://…: this address holds a key or a password, and settings are kept with every "
            "run; give it without, and the credentials in the environment or the provider's own file"
        )
    try:
        filesystem, path = fs.FileSystem.from_uri(place)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        filesystem, path = _by_fsspec(place)
    except OSError as error:
        raise StorageError(f"{place}: cannot be opened as a folder ({error})") from error
    return filesystem, path.rstrip("/")


def _by_fsspec(place: str) -> tuple[fs.FileSystem, str]:
    import fsspec  # comes with torch

    try:
        filesystem, path = fsspec.core.url_to_fs(place)
    except (ImportError, ValueError) as error:
        raise StorageError(
            f"{place}: cannot be opened as a folder ({error}); give a path, or file://, s3:// or gs://"
        ) from error
    return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), path


def is_local(filesystem: fs.FileSystem) -> bool:
    """Whether paths of a file system are paths of this machine."""
    return isinstance(filesystem, fs.LocalFileSystem)


def file_names(filesystem: fs.FileSystem, folder: str) -> dict[str, int]:
    """Sizes in bytes of the files in and under a folder by their path within it; none where there is no folder."""
    found = filesystem.get_file_info(fs.FileSelector(folder, recursive=True, allow_not_found=True))
    return {_within(one.path, folder): one.size for one in found if one.type == fs.FileType.File}


def folder_names(filesystem: fs.FileSystem, folder: str) -> list[str]:
    """Names of the folders in a folder; none where there is no folder."""
    found = filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True))
    return sorted(_within(one.path, folder) for one in found if one.type == fs.FileType.Directory)


def read_bytes(filesystem: fs.FileSystem, path: str) -> bytes:
    """A small file. Raises OSError."""
    with filesystem.open_input_stream(path) as file:
        content: bytes = file.read()
    return content


def write_bytes(filesystem: fs.FileSystem, path: str, content: bytes) -> None:
    """A small file that is there whole or not at all. Raises OSError."""
    if not is_local(filesystem):  # an object appears when its stream is closed
        with filesystem.open_output_stream(path) as file:
            file.write(content)
        return
    aside = Path(f"{path}.writing")
    aside.write_bytes(content)
    aside.replace(path)


@contextmanager
def local_folder(filesystem: fs.FileSystem, path: str) -> Iterator[Path]:
    """A folder as one of this machine: itself, or else a copy for as long as it is used. Raises OSError."""
    if is_local(filesystem):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="neurolm-") as copy:
        fs.copy_files(path, copy, source_filesystem=filesystem, chunk_size=CHUNK_BYTES)
        yield Path(copy)


def _within(path: str, folder: str) -> str:
    return path.rstrip("/").removeprefix(folder.rstrip("/")).lstrip("/")
