"""A shard has the columns of `window_table` and nothing else; checked before any of it is decoded."""

import base64
import os
import re
from pathlib import Path
from typing import Any

import pyarrow as pa

from neurolm.eeg.manifest import ManifestError
from neurolm.eeg.window_table import SCHEMA, shard_schema


def schema_of(metadata: Any) -> pa.Schema:
    """The columns of a Parquet file."""
    return metadata.schema.to_arrow_schema().remove_metadata()


def refuse_extension_types(path: Path) -> None:
    """Raise ManifestError where a column has a type that another library adds to Arrow.

    Opening such a file loads the type, and whoever registered it decides what that runs. So the end of the file, where
    Arrow's own description of the columns stands in base64, is searched first.
    """
    with path.open("rb") as file:
        file.seek(-8, os.SEEK_END)
        size = int.from_bytes(file.read(4), "little")
        file.seek(-8 - min(size, file.tell() - 4), os.SEEK_END)
        footer = file.read()
    for text in re.findall(rb"[A-Za-z0-9+/]{40,}", footer):
        for start in range(4):  # bytes before the text may look like it
            stop = len(text) - (len(text) - start) % 4
            if b"ARROW:extension:name" in base64.b64decode(text[start:stop]):
                raise ManifestError(f"{path}: a column has an extension type of another library; make the store again")


def refuse_other_columns(path: Path, metadata: Any) -> None:
    """Raise ManifestError where a shard has anything but the columns of `window_table`."""
    schema = schema_of(metadata)
    if schema not in (shard_schema("float32"), shard_schema("float16")):
        expected = ", ".join(f"{field.name} ({field.type})" for field in SCHEMA)
        found = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise ManifestError(f"{path}: found the columns {found}; expected {expected}; make the store again")
