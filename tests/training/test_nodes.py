"""Every node is told once, whoever of its workers looks."""

import math
import platform
import sys
from pathlib import Path
from typing import Any

import pytest

from neurolm.training.context import LocalContext
from neurolm.training.nodes import NAMES, Nodes


class OfTwoNodes(LocalContext):
    """A worker of three, of which the last is on another node."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank, self.world_size = rank, 3  # type: ignore[misc]

    def all_gather_object(self, value: Any) -> list[Any]:
        return ["one", "one", "two"]


def test_one_worker_of_each_node_looks(tmp_path: Path) -> None:
    parts = [Nodes(OfTwoNodes(rank), tmp_path).values() for rank in range(3)]
    assert parts[0].keys() == parts[1].keys() == parts[2].keys()
    assert list(parts[0]) == [f"system/{name}/node-{node:02d}" for node in (0, 1) for name in NAMES]
    assert not any(parts[1].values())
    totals = {name: sum(part[name] for part in parts) for name in parts[0]}
    for node in (0, 1):
        assert 0 < totals[f"system/memory_percent/node-{node:02d}"] <= 100
        assert totals[f"system/disk_free_gib/node-{node:02d}"] > 0
    assert platform.node() not in "".join(totals)


def test_a_sample_is_kept_for_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = Nodes(LocalContext(), tmp_path)
    first = nodes.values()
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert nodes.values() == first


def test_without_psutil_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert all(math.isnan(value) for value in Nodes(LocalContext(), tmp_path).values().values())
