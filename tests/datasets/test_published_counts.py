from pathlib import Path

import numpy as np
import pytest

from neurolm.datasets import LAYOUTS
from neurolm.datasets.dataset import SourceFile
from neurolm.datasets.published_counts import compare_with_published
from neurolm.datasets.seed import TRIALS_OF_SPLIT
from neurolm.eeg.recording import Recording

WORKLOAD, SEED = LAYOUTS["workload"], LAYOUTS["seed"]


def zeros(duration_s: float) -> Recording:
    return Recording(np.zeros((1, round(duration_s * 200)), np.float32), 200, ("CZ",))


def planned(name: str, sources: list[SourceFile], split: str) -> list[tuple[str, object, SourceFile, str]]:
    return [(name, LAYOUTS[name], source, split) for source in sources]


def test_workloads_number_follows_from_its_facts() -> None:
    source = SourceFile(Path("Subject00_1.edf"), "Subject00_1.edf", "Subject00", "rest")
    per_file = len(WORKLOAD.windows(source, zeros(182))[0])
    assert WORKLOAD.published.recordings is not None
    assert per_file * WORKLOAD.published.recordings == WORKLOAD.published.windows == 2_088
    assert WORKLOAD.published.windows_by_split == tuple(2 * per_file * number for number in (26, 5, 5))


@pytest.mark.parametrize("part", [None, *TRIALS_OF_SPLIT])
def test_seeds_number_follows_from_its_clips(part: str | None) -> None:
    """Parts of a session meet half-way between the last clip of one and the first of the next."""
    begin, end = {None: (0, 3_990), "train": (0, 2_271), "val": (2_271, 3_059), "test": (3_059, 3_990)}[part]
    source = SourceFile(Path("1_1.cnt"), "1_1.cnt", "1", part=part)
    windows, dropped = SEED.windows(source, zeros(end - begin))
    assert len(windows) == {None: 855, "train": 507, "val": 177, "test": 171}[part]
    assert not dropped
    assert windows[0].start_s == {None: 24, "train": 24, "val": 2_283, "test": 3_072}[part]
    assert windows[0].label == "positive" if part != "test" else "neutral"
    assert 45 * 855 == SEED.published.windows == sum(SEED.published.windows_by_split or ()) == 38_475


def test_hmcs_numbers_agree_with_each_other() -> None:
    published = LAYOUTS["hmc"].published
    assert sum(published.windows_by_split or ()) == published.windows == 137_243
    assert sum(LAYOUTS["hmc"].paper_counts or ()) == published.recordings
    assert [LAYOUTS[name].published.windows for name in ("tuab", "tuev", "tusl")] == [409_455, 112_491, 245]


def whole_workload() -> list[tuple[str, object, SourceFile, str]]:
    files = [
        SourceFile(Path(f"Subject{n:02d}_{k}.edf"), f"{n}_{k}", f"Subject{n:02d}") for n in range(36) for k in "12"
    ]
    return [("workload", WORKLOAD, source, split) for source, split in WORKLOAD.released_split(files)]


def test_a_whole_copy_is_compared_by_split(caplog: pytest.LogCaptureFixture) -> None:
    right = [("workload", "train", 1_508), ("workload", "val", 290), ("workload", "test", 290)]
    report = compare_with_published(whole_workload(), right)  # type: ignore[arg-type]
    assert report["workload"]["differences"] == []
    assert report["workload"]["found"] == report["workload"]["published"] == {"recordings": 72, "windows": 2_088}
    assert not caplog.text
    wrong = compare_with_published(whole_workload(), [*right[:2], ("workload", "test", 289)])  # type: ignore[arg-type]
    assert wrong["workload"]["differences"] == [
        "2087 windows came out, 2088 are published",
        "289 test windows came out, 290 are published",
    ]
    assert "data set workload: 289 test windows came out" in caplog.text


def test_part_of_a_copy_is_told_and_its_windows_are_not_compared() -> None:
    report = compare_with_published(whole_workload()[:62], [("workload", "train", 100)])  # type: ignore[arg-type]
    assert report["workload"]["differences"] == ["62 recordings are here, 72 are published"]


def test_another_split_is_compared_in_sum_only() -> None:
    other = [(name, layout, source, "train") for name, layout, source, _ in whole_workload()]
    report = compare_with_published(other, [("workload", "train", 2_088)])  # type: ignore[arg-type]
    assert report["workload"]["differences"] == []


def test_parts_of_a_file_are_one_recording_and_clips_are_many() -> None:
    sessions = [SourceFile(Path(f"{n}_{k}.cnt"), f"{n}_{k}", str(n)) for n in range(15) for k in (1, 2, 3)]
    parts = [("seed", SEED, source, split) for source, split in SEED.paper_split(sessions)]
    numbers = [("seed", "train", 22_815), ("seed", "val", 7_965), ("seed", "test", 7_695)]
    assert compare_with_published(parts, numbers)["seed"]["differences"] == []  # type: ignore[arg-type]
    layout = LAYOUTS["seed_iv"]
    clips = [
        ("seed_iv", layout, SourceFile(Path(f"{n}.mat"), f"{n}#{k}", str(n), part=str(k)), "train")
        for n in range(45)
        for k in range(24)
    ]
    assert compare_with_published(clips, [])["seed_iv"]["differences"] == []


def test_sets_without_published_numbers_are_not_reported() -> None:
    assert compare_with_published(planned("tueg", [SourceFile(Path("a"), "a", "a")], "train"), []) == {}  # type: ignore[arg-type]
