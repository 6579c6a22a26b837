"""Files that the safetensors package would have written, read and written in pieces."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from neurolm.training import tensor_file
from neurolm.training.tensor_file import (
    DTYPES,
    TensorFile,
    TensorFileError,
    TensorFileWriter,
    TensorSpec,
    TensorStream,
    holds,
)


def tensors() -> dict[str, Tensor]:
    """Every dtype, and what is unusual about a tensor."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 100, (5, 7), generator=generator)
    return {f"of {name}": values.to(dtype) for name, dtype in DTYPES.items()} | {
        "Ångström": torch.randn(3, 4, 5, generator=generator),
        "transposed": torch.randn(6, 4, generator=generator).T,
        "odd": torch.tensor([float("nan"), float("inf"), -0.0, 1e-42]),
        "scalar": torch.tensor(3),
        "flag": torch.tensor(True),
        "empty": torch.empty(0, 3),
        "repeated": torch.zeros(1).expand(9),
        "learning": torch.nn.Parameter(torch.ones(2)),
    }


def same_bits(one: Tensor, other: Tensor) -> bool:
    raw = [tensor.detach().contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)]
    return (one.dtype, one.shape) == (other.dtype, other.shape) and torch.equal(*raw)


@pytest.mark.parametrize("size", [2**24, 24])
def test_a_file_has_the_bytes_that_safetensors_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(tensor_file, "BYTES_AT_ONCE", size)
    plain = {name: one.detach().contiguous().clone() for name, one in tensors().items()}
    save_file(plain, tmp_path / "theirs")
    TensorStream.of(tensors()).write(tmp_path / "ours")
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    save_file({"a": plain["scalar"]}, tmp_path / "theirs", {"key": 'a "value"'})
    with TensorFileWriter(tmp_path / "ours", {"a": TensorSpec(torch.int64, ())}, {"key": 'a "value"'}) as writer:
        writer.write("a", plain["scalar"])
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()

    file = TensorFile(tmp_path / "ours")
    assert file.metadata == {"key": 'a "value"'}
    TensorStream.of(tensors()).write(tmp_path / "ours")
    read = TensorFile(tmp_path / "ours")
    assert read.keys() == plain.keys()
    for name, one in plain.items():
        assert same_bits(read[name], one) and read.specs[name] == TensorSpec.of(one), name
    assert all(same_bits(one, plain[name]) for name, one in load_file(tmp_path / "ours").items())


@given(start=st.integers(0, 40), length=st.integers(0, 40), size=st.integers(1, 60))
def test_any_run_of_elements_is_read_in_place(
    tmp_path_factory: pytest.TempPathFactory, start: int, length: int, size: int
) -> None:
    path = tmp_path_factory.mktemp("file") / "file"
    whole = torch.randn(8, 10).to(torch.bfloat16)
    TensorStream.of({"before": torch.ones(3), "whole": whole}).write(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor_file, "BYTES_AT_ONCE", max(size, 4))
        for dtype in (torch.bfloat16, torch.float32):
            room = torch.full((90,), 7, dtype=dtype)
            TensorFile(path).read_into(room[5 : 5 + length], "whole", start)
            assert torch.equal(room[5 : 5 + length], whole.flatten()[start : start + length].to(dtype))
            assert (room[:5] == 7).all() and (room[5 + length :] == 7).all()


def test_a_value_is_never_rounded(tmp_path: Path) -> None:
    TensorStream.of({"a": torch.ones(3)}).write(tmp_path / "file")
    with pytest.raises(AssertionError, match=r"a: torch.float32 does not fit into torch.bfloat16"):
        TensorFile(tmp_path / "file").read_into(torch.empty(3, dtype=torch.bfloat16), "a")
    assert holds(torch.float32, torch.bfloat16) and holds(torch.float64, torch.float32)
    assert not holds(torch.float16, torch.bfloat16) and not holds(torch.bfloat16, torch.float16)
    assert not holds(torch.float32, torch.int64) and not holds(torch.int64, torch.int32)


def test_a_forgotten_tensor_and_a_wrong_shape_are_noticed(tmp_path: Path) -> None:
    specs = {"a": TensorSpec(torch.float32, (2,)), "b": TensorSpec(torch.float32, (2,))}
    with pytest.raises(AssertionError, match="b never written"), TensorFileWriter(tmp_path / "file", specs) as writer:
        writer.write("a", torch.zeros(2))
    with pytest.raises(AssertionError, match="a: "), TensorFileWriter(tmp_path / "file", specs) as writer:
        writer.write("a", torch.zeros(3))


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    TensorStream.of({"a": torch.ones(300), "b": torch.ones(3)}).write(path)
    whole = path.read_bytes()
    for bad in (b"", whole[:5], whole[:60], whole[:-1], whole + b"x", b"\xff" * 8 + whole[8:]):
        path.write_bytes(bad)
        with pytest.raises(TensorFileError, match="file: not a whole safetensors file"):
            TensorFile(path)
    path.write_bytes(whole)
    opened = TensorFile(path)
    path.write_bytes(whole[:-8])
    with pytest.raises(TensorFileError, match="ends in the midst of b"):
        opened["b"]
    with pytest.raises(TensorFileError, match="absent: not a whole"):
        TensorFile(tmp_path / "absent")


def test_a_stream_is_chosen_from_and_changed_before_anything_of_it_is_there(tmp_path: Path) -> None:
    def summed(pairs: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in pairs:
            yield f"{name}.sum", tensor.sum(0)

    whole = {"model.a": torch.ones(2, 3), "other": torch.ones(1), "model.b": torch.ones(4, 5, dtype=torch.float64)}
    asked: list[str] = []

    def late() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in whole.items():
            asked.append(name)
            yield name, tensor

    stream = TensorStream(TensorStream.of(whole).specs, late()).under("model.").through(summed)
    assert stream.specs == {"a.sum": TensorSpec(torch.float32, (3,)), "b.sum": TensorSpec(torch.float64, (5,))}
    assert asked == []
    stream.write(tmp_path / "file")
    assert {name: one.tolist() for name, one in TensorFile(tmp_path / "file").items()} == {
        "a.sum": [2.0] * 3,
        "b.sum": [4.0] * 5,
    }
    assert asked == list(whole)
    TensorStream(stream.specs, late()).let_pass()
    assert asked == list(whole) * 2
