"""What a training state holds, that any division of it is the same state, and that a faulty one is refused."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from neurolm.training.engine import TorchEngine
from neurolm.training.pieces import Piece
from neurolm.training.tensor_file import TensorFileError
from neurolm.training.training_state import TrainingState, TrainingStateError, write_state
from tests.odd_model import OPTIMIZER, TOTAL_STEPS, OddModel, batch


def engine(seed: int = 0) -> TorchEngine:
    return TorchEngine(OddModel(seed), OPTIMIZER, TOTAL_STEPS, torch.device("cpu"))


def train(one: TorchEngine, num_steps: int) -> list[float]:
    losses = []
    for _ in range(num_steps):
        loss = one(*batch(one.step_count))["loss"]
        one.backward(loss, is_last=True)
        one.step()
        losses.append(loss.item())
    return losses


def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(tmp_path: Path) -> None:
    for num_steps in (0, 3):
        folder = tmp_path / str(num_steps)
        folder.mkdir()
        first, second = engine(), engine(seed=1)
        train(first, num_steps)
        train(second, 2)  # its moments are there already, and are other ones
        first.save(folder)
        for other in (second, engine(seed=2)):
            other.load(folder)
            assert other.step_count == num_steps
        assert train(first, 4) == train(second, 4) == train(other, 4)
        for name, one in first.module.state_dict().items():
            assert torch.equal(one, other.module.state_dict()[name]) == (not name.startswith("scratch")), name


def test_a_weight_in_another_order_of_memory_is_kept_too(tmp_path: Path) -> None:
    def transposed(seed: int) -> TorchEngine:
        model = OddModel(seed)
        model.inner.weight = nn.Parameter(torch.randn(7, 13).T)
        return TorchEngine(model, OPTIMIZER, TOTAL_STEPS, torch.device("cpu"))

    first, second = transposed(0), transposed(1)
    train(first, 2)
    first.save(tmp_path)
    second.load(tmp_path)
    assert train(first, 2) == train(second, 2)


def test_every_tensor_is_in_it_once_and_nothing_is_pickled(tmp_path: Path) -> None:
    one = engine()
    train(one, 3)
    one.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["state-00000-of-00001.safetensors"]
    state = TrainingState(tmp_path)
    weights = dict(one.module.state_dict())
    tied = weights.pop("head.weight")
    trained = [name for name, parameter in one.module.named_parameters() if parameter.requires_grad]
    assert state.specs.keys() == {f"weight.{name}" for name in weights} | {
        f"{kind}.{name}" for kind in ("exp_avg", "exp_avg_sq") for name in trained
    }
    assert state.adam_steps == {name: 0 if name.startswith("unused") else 3 for name in trained}
    found = dict(state.weights().tensors)
    assert found.keys() == one.module.state_dict().keys() == state.weights().specs.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())
    assert torch.equal(found["head.weight"], tied)
    parameter = one.module.get_parameter("inner.weight")
    assert torch.equal(state.tensor("exp_avg.inner.weight"), one._optimizer.state[parameter]["exp_avg"])
    with safe_open(tmp_path / "state-00000-of-00001.safetensors", "pt") as file:
        assert file.get_slice("weight.table.weight").get_shape() == [17 * 13]


def cut(size: int, places: list[int]) -> list[tuple[int, int]]:
    ends = [0, *sorted(min(place, size) for place in places), size]
    return list(itertools.pairwise(ends))


@given(places=st.lists(st.integers(0, 60), max_size=4), other_places=st.lists(st.integers(0, 60), max_size=4))
def test_any_division_is_read_as_any_other(
    tmp_path_factory: pytest.TempPathFactory, places: list[int], other_places: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("state")
    whole = torch.arange(60.0).to(torch.bfloat16)
    parts = cut(60, places)
    for rank, (start, stop) in enumerate(parts):
        own = [
            Piece("weight", "w", whole[start:stop], start, (6, 10)),
            Piece("weight", "b", torch.ones(1), 0, (), True),
        ]
        write_state(folder, own, step_count=5, rank=rank, world_size=len(parts))
    state = TrainingState(folder)
    assert state.step_count == 5
    assert torch.equal(state.tensor("weight.w").flatten(), whole)
    for start, stop in cut(60, other_places):
        values, scalar = torch.full((stop - start,), -1.0), torch.zeros(1)
        state.read([Piece("weight", "w", values, start, (6, 10)), Piece("weight", "b", scalar, 0, (), True)])
        assert torch.equal(values, whole[start:stop].float()) and scalar == 1


def halves(folder: Path) -> Iterator[tuple[int, Piece]]:
    folder.mkdir(exist_ok=True)
    for rank in range(2):
        yield rank, Piece("weight", "layer.weight", torch.full((6,), float(rank)), 6 * rank, (3, 4))


def write_halves(folder: Path, **changes: object) -> None:
    for rank, piece in halves(folder):
        changed = replace(piece, **changes) if rank else piece  # type: ignore[arg-type]
        write_state(folder, [changed], step_count=5, rank=rank, world_size=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": 7, "values": torch.ones(5)}, r"elements 6 to 6 of weight.layer.weight are in no file"),
        ({"start": 4}, r"elements 4 to 5 of weight.layer.weight are in two files, .*state-00001-of-00002"),
        ({"values": torch.ones(4)}, r"weight.layer.weight should have 12 elements, its pieces end at 10"),
        ({"shape": (4, 3)}, r"state-00001.*: weight.layer.weight is .*\(4, 3\).*, in another file .*\(3, 4\)"),
        ({"values": torch.ones(6).half()}, r"weight.layer.weight is .*float16.*, in another file .*float32"),
    ],
)
def test_pieces_that_do_not_fit_together_are_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    write_halves(tmp_path / "state", **changes)
    with pytest.raises(TrainingStateError, match=message):
        TrainingState(tmp_path / "state")


def test_missing_mixed_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingStateError, match=r"no training state here"):
        TrainingState(tmp_path)
    write_halves(tmp_path)
    last = tmp_path / "state-00001-of-00002.safetensors"
    content = last.read_bytes()
    last.unlink()
    with pytest.raises(TrainingStateError, match=r"expected the files of 2 workers; missing: state-00001-of-00002"):
        TrainingState(tmp_path)
    last.write_bytes(content)
    extra = tmp_path / "state-00000-of-00001.safetensors"
    extra.write_bytes((tmp_path / "state-00000-of-00002.safetensors").read_bytes())
    with pytest.raises(TrainingStateError, match=r"expected the files of 2 workers; surplus: state-00000-of-00001"):
        TrainingState(tmp_path)
    extra.unlink()
    last.write_bytes(content[:-3])
    with pytest.raises(TensorFileError, match=r"state-00001.*not a whole safetensors file"):
        TrainingState(tmp_path)
    for rank, piece in halves(tmp_path):
        write_state(tmp_path, [piece], step_count=5 + rank, rank=rank, world_size=2)
    with pytest.raises(TrainingStateError, match=r"files of different steps: 5, 6"):
        TrainingState(tmp_path)
    save_file({"a": torch.ones(1)}, last)
    with pytest.raises(TrainingStateError, match=r"state-00001.*: expected 'neurolm training state 1', found None"):
        TrainingState(tmp_path)


def test_another_models_state_is_refused_and_nothing_is_changed(tmp_path: Path) -> None:
    one = engine()
    train(one, 1)
    one.save(tmp_path)

    class Larger(OddModel):
        def __init__(self) -> None:
            super().__init__()
            self.more = nn.Linear(2, 2)

    class Frozen(OddModel):
        def __init__(self) -> None:
            super().__init__()
            self.inner.requires_grad_(False)

    class Wider(OddModel):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Linear(3, 12)

    for model, message in (
        (
            Larger(),
            r"has no exp_avg.more.bias, exp_avg.more.weight, exp_avg_sq.more.bias, .* and 1 more, which this mod",
        ),
        (Frozen(), r"has exp_avg.inner.bias, exp_avg.inner.weight, .*, which this model has not"),
        (Wider(), r"weight.unused.weight is \[11, 3\], this model's is \[12, 3\]"),
        (OddModel().bfloat16(), r"is torch.float32, this engine keeps torch.bfloat16 and would round it"),
    ):
        other = TorchEngine(model, OPTIMIZER, TOTAL_STEPS, torch.device("cpu"))
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with pytest.raises(TrainingStateError, match=message):
            other.load(tmp_path)
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_low_precision_state_is_read_into_a_higher_one(tmp_path: Path) -> None:
    low = TorchEngine(OddModel().bfloat16(), OPTIMIZER, TOTAL_STEPS, torch.device("cpu"))
    train(low, 2)
    low.save(tmp_path)
    high = engine(seed=1)
    high.load(tmp_path)
    for name, tensor in low.module.state_dict().items():
        assert name.startswith("scratch") or torch.equal(tensor, high.module.state_dict()[name].to(tensor.dtype))
