"""Validation looks at every window once, however many workers there are; a sample stands for all in between."""

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from neurolm.config import build
from neurolm.eeg.shards import Store, WindowIndex
from neurolm.training.assembly import Assembly, assemble
from neurolm.training.context import LocalContext
from neurolm.training.runs import TokenizerRun
from neurolm.training.validation_sample import validation_sample
from tests.tiny import write_tiny_store

NUM_WINDOWS = 13


class Together:
    """Sums and gathers of several threads, each of which is a worker."""

    def __init__(self, world_size: int) -> None:
        self.parts: list[Any] = [None] * world_size
        self.barrier = threading.Barrier(world_size)

    def gather(self, rank: int, value: Any) -> list[Any]:
        self.parts[rank] = value
        self.barrier.wait()
        found = list(self.parts)
        self.barrier.wait()
        return found


class ThreadContext(LocalContext):
    def __init__(self, rank: int, together: Together) -> None:
        super().__init__()
        self.rank, self.world_size, self._together = rank, len(together.parts), together  # type: ignore[misc]

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        return torch.stack(self._together.gather(self.rank, values.clone())).sum(0)

    def all_gather_object(self, value: Any) -> list[Any]:
        return self._together.gather(self.rank, value)


def tokenizer_run(out: Path, store: Path, **changes: Any) -> TokenizerRun:
    values = {
        "out": str(out),
        "data": {"store": str(store)},
        "epochs": 1,
        "batch": {"size": 6, "micro_size": 5},
        "optimizer": {"learning_rate": 1e-3},
        "model": {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "codebook_size": 16, "codebook_dim": 8},
        "tracking": {"enabled": False},
    }
    return build(TokenizerRun, values | changes, source="test")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store whose validation split is an odd number of windows of two shapes."""
    monkeypatch.setattr(Store, "index", lambda store, split, data_sets=None, index=Store.index: index(store, "train"))
    (tmp_path / "store").mkdir()
    return write_tiny_store(tmp_path / "store", NUM_WINDOWS, mixed_shapes=True)


def validate(run: TokenizerRun, world_size: int) -> list[dict[str, float]]:
    together, assemblies = Together(world_size), list[Assembly]()
    for rank in range(world_size):
        assemblies.append(assemble(run, ThreadContext(rank, together)))
    found: list[dict[str, float]] = [{}] * world_size

    def work(rank: int) -> None:
        assemblies[rank].stage.eval()
        found[rank] = assemblies[rank].validate(True)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_every_window_counts_once_on_any_number_of_workers(tmp_path: Path, store: Path) -> None:
    (alone,) = validate(tokenizer_run(tmp_path, store), 1)
    assert alone["loss"] > 0 and alone["raw/workload"] == pytest.approx(alone["raw"], rel=1e-6)
    for world_size in (2, 3):
        several = validate(tokenizer_run(tmp_path, store), world_size)
        assert all(one == several[0] for one in several), "equal on every worker"
        assert several[0] == pytest.approx(alone, rel=1e-5)


def test_a_sample_stands_for_all_until_the_end(tmp_path: Path, store: Path) -> None:
    (whole,) = validate(tokenizer_run(tmp_path, store), 1)
    (last,) = validate(tokenizer_run(tmp_path, store, validation_windows=5), 1)
    assert (last["windows"], last["all/windows"]) == (5, NUM_WINDOWS)
    assert {name: last[f"all/{name}"] for name in whole} == pytest.approx(whole, rel=1e-6)
    assert last["loss"] != last["all/loss"]
    assembly = assemble(tokenizer_run(tmp_path, store, validation_windows=5), LocalContext())
    assembly.stage.eval()
    earlier = assembly.validate(False)
    assert earlier == {name: value for name, value in last.items() if not name.startswith("all/")}


def index_of(labels: list[str | None]) -> WindowIndex:
    number = len(labels)
    names: dict[str, Any] = dict.fromkeys(("data_set", "subject", "recording"), np.array(["a"] * number, dtype=object))
    numbers: dict[str, Any] = dict.fromkeys(("row_groups", "num_channels", "num_times"), np.zeros(number, np.int64))
    label = np.array(labels, dtype=object)
    return WindowIndex(**names, **numbers, rows=np.arange(number), start_s=np.zeros(number), label=label)


def test_a_sample_has_every_class_by_its_share() -> None:
    labels = ["W"] * 600 + ["N1"] * 300 + ["R"] * 99 + ["rare"]
    index = index_of([labels[place] for place in np.random.default_rng(0).permutation(1000)])
    sample = validation_sample(index, 100, seed=3)
    counts = Counter(sample.label)
    assert counts["rare"] == 1
    assert (abs(counts["W"] - 60), abs(counts["N1"] - 30), abs(counts["R"] - 10)) <= (1, 1, 1)
    assert len(sample) <= 101 and (np.diff(sample.rows) > 0).all()
    assert np.array_equal(sample.rows, validation_sample(index, 100, seed=3).rows)
    assert not np.array_equal(sample.rows, validation_sample(index, 100, seed=4).rows)
    assert validation_sample(index, 1000, seed=3) is index
    assert len(validation_sample(index_of([None] * 50), 7, seed=0)) == 7
