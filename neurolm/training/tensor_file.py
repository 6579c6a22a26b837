"""Files in the safetensors format, written and read piece by piece, so that nothing is ever held twice.

The package ``safetensors`` writes what lies in memory as a whole and maps what it reads, and mapped pages count as a
process's memory. Here a file is laid out from dtypes and shapes alone and filled in any order, and elements are read
straight into the tensor that wants them. Layout and bytes are those of ``safetensors.torch.save_file``.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from neurolm.config import UserError

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
}
"""Names of dtypes in a file; those that need a coarser alignment come last, and stand first in a file."""
NAMES = {dtype: name for name, dtype in DTYPES.items()}
RANKS = {dtype: rank for rank, dtype in enumerate(DTYPES.values())}
BYTES_AT_ONCE = 2**24
"""What is copied, where anything has to be: 16 MiB."""
METADATA = "__metadata__"


class TensorFileError(UserError):
    """A file that is not whole, or not in the safetensors format."""


@dataclass(frozen=True)
class TensorSpec:
    """What a tensor is before it is there."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @staticmethod
    def of(tensor: Tensor) -> "TensorSpec":
        """The spec of a tensor that is there."""
        return TensorSpec(tensor.dtype, tuple(tensor.shape))

    @property
    def num_elements(self) -> int:
        """Elements; one of a scalar."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Bytes of all elements."""
        return self.num_elements * self.dtype.itemsize


class TensorFileWriter:
    """Writes the tensors of one file in any order. A context manager; leaving it checks that none was forgotten."""

    def __init__(self, path: Path, specs: Mapping[str, TensorSpec], metadata: Mapping[str, str] | None = None) -> None:
        self._path = path
        self._specs = dict(specs)
        self._offsets: dict[str, int] = {}
        header: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
        end = 0
        for name in sorted(specs, key=lambda name: (-RANKS[specs[name].dtype], name)):
            spec, start = specs[name], end
            end += spec.num_bytes
            header[name] = {"dtype": NAMES[spec.dtype], "shape": list(spec.shape), "data_offsets": [start, end]}
            self._offsets[name] = start
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        self._file: BinaryIO = path.open("wb")
        self._file.write(len(text).to_bytes(8, "little") + text)
        self._start = 8 + len(text)
        self._missing = set(specs)

    def __enter__(self) -> "TensorFileWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if kind is None and self._missing:
            raise AssertionError(f"{self._path}: {', '.join(sorted(self._missing))} never written")

    def write(self, name: str, tensor: Tensor) -> None:
        """Write one tensor of the announced dtype and shape, from wherever it lies."""
        assert TensorSpec.of(tensor) == self._specs[name], f"{name}: {TensorSpec.of(tensor)}, not {self._specs[name]}"
        self._file.seek(self._start + self._offsets[name])
        for part in _parts(tensor.detach().reshape(-1)):
            self._file.write(_bytes_of(part.cpu().contiguous()))
        self._missing.discard(name)


class TensorFile(Mapping[str, Tensor]):
    """The tensors of a file by name, read when they are asked for and never kept."""

    def __init__(self, path: Path) -> None:
        """Read the header. Raises TensorFileError where the file is damaged or cut short."""
        self.path = path
        try:
            with safe_open(path, framework="pt"):  # looks at everything but the elements
                pass
        except (SafetensorError, OSError) as error:
            raise TensorFileError(
                f"{path}: not a whole safetensors file ({error}); it was damaged or copied only in part"
            ) from None
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = json.loads(file.read(size))
        self.metadata: dict[str, str] = header.pop(METADATA, {})
        if unknown := sorted({entry["dtype"] for entry in header.values()} - DTYPES.keys()):
            raise TensorFileError(f"{path}: holds {', '.join(unknown)}; known are {', '.join(DTYPES)}")
        self.specs = {name: TensorSpec(DTYPES[entry["dtype"]], tuple(entry["shape"])) for name, entry in header.items()}
        self._places = {name: 8 + size + entry["data_offsets"][0] for name, entry in header.items()}

    def __getitem__(self, name: str) -> Tensor:
        spec = self.specs[name]
        tensor = torch.empty(spec.shape, dtype=spec.dtype)
        self.read_into(tensor, name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)

    def read_into(self, values: Tensor, name: str, start: int = 0) -> None:
        """Fill ``values`` with the elements of a flattened tensor from ``start`` on.

        ``values`` is contiguous, on any device, and of the tensor's dtype or one that holds all of its values exactly.
        """
        spec = self.specs[name]
        assert holds(values.dtype, spec.dtype), f"{name}: {spec.dtype} does not fit into {values.dtype}"
        assert start + values.numel() <= spec.num_elements, f"{name}: has no {start + values.numel()} elements"
        flat = values.detach().view(-1)
        is_direct = flat.dtype == spec.dtype and flat.device.type == "cpu"
        with self.path.open("rb") as file:
            file.seek(self._places[name] + start * spec.dtype.itemsize)
            for part in _parts(flat):
                read = part if is_direct else torch.empty(len(part), dtype=spec.dtype)
                room = _bytes_of(read)
                if file.readinto(room) != len(room):
                    raise TensorFileError(f"{self.path}: ends in the midst of {name}; it was cut short")
                if not is_direct:
                    part.copy_(read)


Change = Callable[[Iterable[tuple[str, Tensor]]], Iterator[tuple[str, Tensor]]]
"""Takes named tensors one by one and gives others."""


@dataclass(frozen=True)
class TensorStream:
    """Named tensors that come one by one and can be let go of one by one; what each will be is known before."""

    specs: Mapping[str, TensorSpec]
    tensors: Iterable[tuple[str, Tensor]]

    @staticmethod
    def of(tensors: Mapping[str, Tensor]) -> "TensorStream":
        """Tensors that are there."""
        return TensorStream({name: TensorSpec.of(one) for name, one in tensors.items()}, tensors.items())

    def under(self, prefix: str) -> "TensorStream":
        """Those whose names start with ``prefix``, without it."""
        specs = {name.removeprefix(prefix): one for name, one in self.specs.items() if name.startswith(prefix)}
        chosen = ((name.removeprefix(prefix), one) for name, one in self.tensors if name.startswith(prefix))
        return TensorStream(specs, chosen)

    def through(self, change: Change) -> "TensorStream":
        """What ``change`` makes of the stream; it is asked once before, with tensors that have no values."""
        shells = ((name, torch.empty(one.shape, dtype=one.dtype, device="meta")) for name, one in self.specs.items())
        return TensorStream({name: TensorSpec.of(one) for name, one in change(shells)}, change(self.tensors))

    def write(self, path: Path) -> None:
        """Write a file of all tensors."""
        with TensorFileWriter(path, self.specs) as writer:
            for name, tensor in self.tensors:
                writer.write(name, tensor)

    def let_pass(self) -> None:
        """Take part in the stream without keeping anything."""
        for _ in self.tensors:
            pass


def holds(dtype: torch.dtype, other: torch.dtype) -> bool:
    """Whether every value of ``other`` is one of ``dtype`` too."""
    both_float = dtype.is_floating_point and other.is_floating_point
    return dtype == other or (both_float and torch.promote_types(dtype, other) == dtype)


def _parts(flat: Tensor) -> Iterator[Tensor]:
    """Pieces of a flat tensor that are small enough to be copied."""
    size = BYTES_AT_ONCE // flat.dtype.itemsize
    for start in range(0, flat.numel(), size):
        yield flat[start : start + size]


def _bytes_of(flat: Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the CPU, in place."""
    array: Any = flat.view(torch.uint8).numpy()
    return memoryview(array)
