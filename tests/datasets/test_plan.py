"""The plan follows from the recordings alone, so that a store can grow."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neurolm.config import build
from neurolm.datasets.data_config import DataConfig
from neurolm.datasets.dataset import SourceFile
from neurolm.datasets.plan import Origins, ShardPlan, plan_downstream
from neurolm.datasets.workload import Workload
from neurolm.eeg.preprocessing import PreprocessingConfig


def write_files(folder: Path, sizes: Mapping[int, int]) -> None:
    """Recordings of Workload subjects, of so many bytes; nothing of them is read."""
    for subject, size in sizes.items():
        (folder / f"Subject{subject:02d}_1.edf").write_bytes(b"x" * size)


def plans_of(folder: Path, sizes: Mapping[int, int]) -> list[ShardPlan]:
    for path in folder.glob("*.edf"):
        path.unlink()
    write_files(folder, sizes)
    config = build(DataConfig, {"root": folder, "split": {"counts": [len(sizes), 0, 0]}}, "test")
    return plan_downstream(config, folder / "store")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(sizes=st.dictionaries(st.integers(0, 99), st.integers(0, 60), min_size=1, max_size=30), added=st.integers(0, 60))
def test_shards_hold_every_recording_once_and_grow_one_by_one(
    sizes: dict[int, int], added: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neurolm.datasets.plan.SHARD_SOURCE_BYTES", 100)
    plans = plans_of(tmp_path, sizes)
    names = [source.path.name for plan in plans for source in plan.sources]
    assert sorted(names) == sorted(f"Subject{subject:02d}_1.edf" for subject in sizes)
    for plan in plans:
        assert len(plan.sources) == 1 or sum(source.path.stat().st_size for source in plan.sources) <= 100
        bits = plan.path.stem.split("-")[2]
        for source in plan.sources:
            assert bits == "all" or f"{int(plan.recording_id(source), 16):064b}".startswith(bits)
    before = {plan.path.name: [source.recording for source in plan.sources] for plan in plans}
    after = {
        plan.path.name: [source.recording for source in plan.sources]
        for plan in plans_of(tmp_path, sizes | {100: added})
    }
    touched = [names for name, names in before.items() if after.get(name) != names]
    assert len(touched) <= 1


@pytest.fixture
def plan() -> ShardPlan:
    return ShardPlan(Path("train-a-all.parquet"), "train", "a", Workload(), (), PreprocessingConfig(), b"k" * 32)


def test_origin_follows_the_files_of_a_recording_and_no_others(plan: ShardPlan, tmp_path: Path) -> None:
    for name in ("SN001.edf", "SN001_sleepscoring.txt", "SN0011.edf", "SN002.edf"):
        (tmp_path / name).write_text(name)
    source = SourceFile(tmp_path / "SN001.edf", "SN001.edf", "SN001")
    first = Origins().of(plan, source)
    assert Origins().size(source) == len("SN001.edf" + "SN001_sleepscoring.txt")
    for name in ("SN0011.edf", "SN002.edf"):
        (tmp_path / name).write_text("changed")
    assert Origins().of(plan, source) == first
    seen = {first}
    for name in ("SN001.edf", "SN001_sleepscoring.txt"):
        status = (tmp_path / name).stat()
        os.utime(tmp_path / name, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        seen.add(Origins().of(plan, source))
    (tmp_path / "SN001.edf").unlink()  # also a recording that vanishes has an origin; reading it will say what is wrong
    seen.add(Origins().of(plan, source))
    assert len(seen) == 4


def test_origin_follows_settings_and_what_is_known_of_the_recording(plan: ShardPlan, tmp_path: Path) -> None:
    (tmp_path / "a.edf").write_text("a")
    source = SourceFile(tmp_path / "a.edf", "a.edf", "a", "rest")
    origins = [
        Origins().of(plan, source),
        Origins().of(plan, SourceFile(tmp_path / "a.edf", "a.edf", "a", "arithmetic")),
        Origins().of(plan, SourceFile(tmp_path / "a.edf", "a.edf", "b", "rest")),
    ]
    for values in (
        {"signal_dtype": "float16"},
        {"preprocessing": PreprocessingConfig(high_hz=70)},
        {"layout": Workload(window_s=5.0)},
        {"data_set": "b"},
        {"key": b"l" * 32},
    ):
        origins.append(Origins().of(replace(plan, **values), source))
    assert len(set(origins)) == len(origins)
    moved = replace(plan, split="val", path=Path("elsewhere/val-a-all.parquet"))
    assert Origins().of(moved, source) == origins[0]
