"""A training state is the same state under every engine, stage, precision and number of workers."""

import json
from pathlib import Path

import pytest
import torch

from neurolm.training.engine import TorchEngine
from neurolm.training.tensor_file import TensorFile
from neurolm.training.training_state import TrainingState
from tests.distributed.zero_worker import VARIANTS, Job, run
from tests.odd_model import OPTIMIZER, TOTAL_STEPS, OddModel, batch

FEW = ["zero 2", "zero 3, small groups", "zero 1, bf16", "zero 3, all bf16"]
"""One of each way in which DeepSpeed keeps its state; all others only where tests may take minutes."""


def is_exact(name: str) -> bool:
    """Whether a variant computes what plain torch does, in fp32."""
    return "bf16" not in name


def train(engine: TorchEngine, num_steps: int) -> list[float]:
    losses = []
    for _ in range(num_steps):
        loss = engine(*batch(engine.step_count))["loss"]
        engine.backward(loss, is_last=True)
        engine.step()
        losses.append(loss.item())
    return losses


def torch_engine(seed: int = 0) -> TorchEngine:
    return TorchEngine(OddModel(seed), OPTIMIZER, TOTAL_STEPS, torch.device("cpu"))


def losses(folder: Path) -> list[float]:
    return list(json.loads((folder / "losses.json").read_text()))


def assert_same(one: Path, other: Path) -> None:
    """Bit for bit, dtypes too."""
    state, again = TrainingState(one), TrainingState(other)
    assert (state.specs, state.step_count) == (again.specs, again.step_count), other
    for key in state.specs:
        bits = [each.tensor(key).view(-1).view(torch.uint8) for each in (state, again)]
        assert torch.equal(*bits), f"{key} of {other} is not that of {one}"


@pytest.fixture(scope="module", params=["few", pytest.param("all", marks=pytest.mark.equivalence)])
def variants(request: pytest.FixtureRequest) -> list[str]:
    return FEW if request.param == "few" else list(VARIANTS)


@pytest.fixture(scope="module")
def states(variants: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every variant on two workers: three steps, saved, three more; and the same by plain torch."""
    root = tmp_path_factory.mktemp("states")
    engine = torch_engine()
    train(engine, 3)
    for name, one in (("torch", engine), ("start", torch_engine())):
        (root / name).mkdir()
        one.save(root / name)
    (root / "torch" / "losses.json").write_text(json.dumps(train(engine, 3)))
    jobs = [Job(name, root / name, before=3, after=3) for name in variants]
    jobs += [Job(name, root / "again" / name, load=root / name, after=3) for name in variants]
    jobs += [Job(name, root / "live" / name, load=root / name, after=3, is_live=True) for name in variants]
    jobs += [Job(name, root / "from torch" / name, load=root / "torch", after=3) for name in filter(is_exact, variants)]
    jobs += [Job(name, root / "from start" / name, load=root / "start", after=3) for name in filter(is_exact, variants)]
    jobs += [Job(name, root / "at start" / name) for name in variants]
    run(jobs, world_size=2)
    return root


def test_a_state_comes_back_bit_by_bit_and_training_goes_on_as_if_nothing_had_been(
    variants: list[str], states: Path
) -> None:
    for name in variants:
        for again in ("again", "live"):
            assert_same(states / name, states / again / name)
            assert losses(states / again / name) == losses(states / name), (again, name)


def test_every_variant_continues_what_plain_torch_began(variants: list[str], states: Path) -> None:
    for name in filter(is_exact, variants):
        assert_same(states / "torch", states / "from torch" / name)
        assert losses(states / "from torch" / name) == pytest.approx(losses(states / "torch"), rel=1e-6), name
        assert_same(states / "start", states / "from start" / name)
        first = torch_engine()
        assert losses(states / "from start" / name) == pytest.approx(train(first, 3), rel=1e-6), name


def test_plain_torch_continues_what_any_variant_began(variants: list[str], states: Path, tmp_path: Path) -> None:
    for name in variants:
        engine = torch_engine(seed=2)
        engine.load(states / name)
        folder = tmp_path / name
        folder.mkdir()
        engine.save(folder)
        state, again = TrainingState(states / name), TrainingState(folder)
        for key in state.specs:
            assert torch.equal(state.tensor(key).to(again.specs[key].dtype), again.tensor(key)), (name, key)
        close = {"rel": 1e-6} if is_exact(name) else {"rel": 0.02}
        assert train(engine, 3) == pytest.approx(losses(states / name), **close), name


def test_masters_and_moments_keep_their_precision(variants: list[str], states: Path) -> None:
    for name in variants:
        for when in (".", "at start"):
            state = TrainingState(states / when / name)
            expected = torch.bfloat16 if "all bf16" in name else torch.float32
            found = {key: state.specs[key].dtype for key in state.specs if key.endswith("inner.weight")}
            assert found == dict.fromkeys(
                ("weight.inner.weight", "exp_avg.inner.weight", "exp_avg_sq.inner.weight"), expected
            ), (name, when)


def test_the_first_worker_gets_all_weights(variants: list[str], states: Path) -> None:
    for name in variants:
        file, expected = (
            TensorFile(states / name / "weights.safetensors"),
            dict(TrainingState(states / name).weights().tensors),
        )
        assert file.keys() == expected.keys() and "head.weight" in file
        assert all(torch.equal(file[key], expected[key]) for key in file), name


@pytest.mark.parametrize("world_size", [1, 3])
def test_other_numbers_of_workers_continue(variants: list[str], states: Path, tmp_path: Path, world_size: int) -> None:
    jobs = [Job(name, tmp_path / name, load=states / name, after=3) for name in variants]
    jobs += [
        Job(name, tmp_path / "torch" / name, load=states / "torch", after=3) for name in filter(is_exact, variants)
    ]
    run(jobs, world_size)
    for name in variants:
        assert_same(states / name, tmp_path / name)
        close = {"rel": 1e-6} if is_exact(name) else {"rel": 0.02}
        assert losses(tmp_path / name) == pytest.approx(losses(states / name), **close), name
    for name in filter(is_exact, variants):
        assert_same(states / "torch", tmp_path / "torch" / name)
        assert losses(tmp_path / "torch" / name) == pytest.approx(losses(states / "torch"), rel=1e-6), name
