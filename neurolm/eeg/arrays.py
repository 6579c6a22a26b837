"""Recordings that are bare arrays: .npz, .mat and .csv say neither rate nor unit, so somebody else has to."""

import csv
import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import mne
import numpy as np
from pydantic import Field

from neurolm.config import ConfigError, as_dict, build, config
from neurolm.eeg.containers import RecordingError
from neurolm.eeg.privacy import foreign_words

ARRAY_SUFFIXES = (".npz", ".npy", ".mat", ".csv", ".tsv")
_UV_PER_UNIT = {"V": 1e6, "mV": 1e3, "uV": 1.0, "µV": 1.0, "nV": 1e-3}


@config
class ArrayFormat:
    """What an array file does not say itself.

    A file ``NAME.json`` beside ``NAME.npz`` may hold any of these settings for that one recording.
    """

    sampling_rate_hz: Annotated[float, Field(gt=0)] | None = None
    """Time points in a second."""
    unit: Literal["V", "mV", "uV", "µV", "nV"] | Annotated[float, Field(gt=0)] | None = None
    """Unit of the values, or how many µV one step of theirs is."""
    channels: tuple[str, ...] | None = None
    """Names in the order of the array; null: the header line of a table."""
    variable: str | None = None
    """Name of the array in an .npz or .mat file, with dots into structs; null: the only two-dimensional one."""
    axes: Literal["channels times", "times channels"] | None = None
    """Which axis is which; null: the one as long as the list of channels."""


def is_array_file(path: Path) -> bool:
    """Whether a file holds a bare array."""
    return path.suffix.lower() in ARRAY_SUFFIXES


def open_array(path: Path, declared: ArrayFormat | None) -> Any:
    """An array file as MNE's Raw. Raises RecordingError: something is not declared, or the file is not as declared."""
    if not path.exists():
        raise RecordingError(f"{path}: no such recording")
    declared = _with_sidecar(path, declared or ArrayFormat())
    values, header = _read(path, declared.variable)
    names = declared.channels or header
    required = {"sampling_rate_hz": declared.sampling_rate_hz, "unit": declared.unit, "channels": names}
    if missing := [name for name, value in required.items() if value is None]:
        raise RecordingError(
            f"{path}: an array file says no {', '.join(missing)}; give them in `arrays` of the declaration "
            "or in a .json file of the same name"
        )
    assert names is not None and declared.unit is not None and declared.sampling_rate_hz is not None
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.number) or np.iscomplexobj(values):
        raise RecordingError(
            f"{path}: expected a real array of channels and times, found {values.dtype} {values.shape}"
        )
    axes = declared.axes or _axes(path, values.shape, len(names))
    signal = np.asarray(values if axes == "channels times" else values.T, dtype=np.float64)
    if len(signal) != len(names):
        raise RecordingError(
            f"{path}: {len(names)} channels are declared, the array of shape {values.shape} has {len(signal)}"
        )
    if len(set(names)) < len(names):
        raise RecordingError(f"{path}: a channel is named twice")
    uv_per_unit = _UV_PER_UNIT[declared.unit] if isinstance(declared.unit, str) else declared.unit
    info = mne.create_info(list(names), declared.sampling_rate_hz, "misc", verbose="WARNING")
    return mne.io.RawArray(signal * (uv_per_unit * 1e-6), info, verbose="WARNING")


def read_mat(path: Path, names: Sequence[str] | None = None) -> dict[str, Any]:
    """Variables of a MATLAB file up to version 7, by name, None is all; structs come as objects with attributes.

    Raises:
        RecordingError: missing or unreadable file, MATLAB 7.3 (HDF5), missing variable.
    """
    from scipy.io import loadmat, whosmat

    if not path.is_file():
        raise RecordingError(f"{path}: no such recording")
    try:
        content = loadmat(path, variable_names=names, squeeze_me=True, struct_as_record=False)
    except MemoryError:
        raise
    except NotImplementedError:
        raise RecordingError(f"{path}: saved as MATLAB 7.3; save it again in MATLAB with -v7 or as .npz") from None
    except Exception as error:  # a broken file fails in as many ways as there are bytes
        raise RecordingError(f"{path}: not a readable MATLAB file ({foreign_words(error)})") from None
    if missing := [name for name in names or () if name not in content]:
        found = ", ".join(name for name, *_ in whosmat(path))
        raise RecordingError(f"{path}: no variable {', '.join(missing)}; the file has {found}")
    return {name: value for name, value in content.items() if not name.startswith("__")}


def _with_sidecar(path: Path, declared: ArrayFormat) -> ArrayFormat:
    sidecar = path.with_suffix(".json")
    if not sidecar.is_file():
        return declared
    try:
        values = json.loads(sidecar.read_text())
        beside = build(ArrayFormat, values, source="its .json file")
    except (ConfigError, ValueError, TypeError) as error:
        raise RecordingError(f"{path}: {error}") from None
    said = {field.name: getattr(beside, field.name) for field in fields(ArrayFormat) if field.name in values}
    return replace(build(ArrayFormat, as_dict(declared), source=str(path)), **said)


def _axes(path: Path, shape: tuple[int, ...], num_channels: int) -> Literal["channels times", "times channels"]:
    matches = [axis for axis in (0, 1) if shape[axis] == num_channels]
    if len(matches) != 1:
        raise RecordingError(
            f"{path}: which axis of {shape} holds the {num_channels} channels is not clear; declare `axes`"
        )
    return "channels times" if matches == [0] else "times channels"


def _read(path: Path, variable: str | None) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """The array, and the names in its header line if it is a table that has one."""
    suffix = path.suffix.lower()
    try:
        if suffix in (".csv", ".tsv"):
            return _read_table(path, "\t" if suffix == ".tsv" else ",")
        if suffix == ".npy":
            return np.load(path, allow_pickle=False), None
        if suffix == ".npz":
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                return _chosen(path, {name: archive[name] for name in archive.files}, variable), None
        return _chosen(path, read_mat(path), variable), None
    except RecordingError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # as many ways as files can be broken
        raise RecordingError(f"{path}: this array file cannot be read ({foreign_words(error)})") from None


def _read_table(path: Path, delimiter: str) -> tuple[np.ndarray, tuple[str, ...] | None]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        first = [cell.strip() for cell in next(csv.reader(file, delimiter=delimiter), [])]
    header = None if all(map(_is_number, first)) else tuple(first)
    settings: Any = {"delimiter": delimiter, "skiprows": int(header is not None), "ndmin": 2, "comments": None}
    try:
        values = np.loadtxt(path, encoding="utf-8-sig", **settings)
    except ValueError:  # perhaps only because of empty cells: missing values
        values = np.loadtxt(path, encoding="utf-8-sig", converters=lambda cell: float(cell or "nan"), **settings)
    return values, header


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text == ""  # an empty cell is a missing value
    return True


def _chosen(path: Path, arrays: dict[str, Any], variable: str | None) -> np.ndarray:
    if variable is None:
        found = [name for name, value in arrays.items() if getattr(value, "ndim", 0) == 2]
        if len(found) != 1:
            raise RecordingError(
                f"{path}: holds {len(found)} two-dimensional arrays ({', '.join(sorted(arrays))}); declare `variable`"
            )
        return np.asarray(arrays[found[0]])
    name, *attributes = variable.split(".")
    if name not in arrays:
        raise RecordingError(f"{path}: holds no variable {name!r}; found {', '.join(sorted(arrays))}")
    value = arrays[name]
    for attribute in attributes:
        if not hasattr(value, attribute):
            raise RecordingError(f"{path}: variable {variable!r}: there is no field {attribute!r}")
        value = getattr(value, attribute)
    return np.asarray(value)
