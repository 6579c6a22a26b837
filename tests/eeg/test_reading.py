"""Which windows a run reads, and how often."""

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from neurolm.config import UserError
from neurolm.eeg.mixture import MixtureConfig
from neurolm.eeg.reading import ReadingPlan
from neurolm.eeg.shards import Store, StoredWindow
from tests.tiny import stored_window, write_store

LABELS = {"workload": ("rest", "arithmetic"), "hmc": ("W", "N1", "N2", "N3", "R")}
SIZES = {"workload": 30, "hmc": 10}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    def window(name: str, number: int) -> StoredWindow:
        return stored_window(1, 200, data_set=name, label=LABELS[name][number % len(LABELS[name])], seed=number)

    train = [window(name, number) for name, size in SIZES.items() for number in range(size)]
    val = [window("workload", number) for number in range(100, 104)]
    return Store.open(write_store(tmp_path, {"train": train, "val": val}))


def plan(mixture: MixtureConfig | None = None, **changes: object) -> ReadingPlan:
    return ReadingPlan(**({"store": Path(), "data_sets": None, "batch_size": 7, "epochs": 3, "seed": 1}
                          | {"mixture": mixture} | changes))  # fmt: skip


@pytest.mark.parametrize(
    ("mixture", "hmc", "workload"),
    [
        (
            MixtureConfig(weights={"workload": 1, "hmc": 1}),
            "10 windows: 10 read 6 times",
            "30 windows: 30 read 2 times",
        ),
        (
            MixtureConfig(weights={"workload": 9, "hmc": 1}),
            "10 windows: 8 read once, 2 read 2 times",
            "30 windows: 12 read 3 times, 18 read 4 times",
        ),
        (
            MixtureConfig(fraction=0.5),
            "10 windows: 5 read 3 times, 5 left out by mixture.fraction",
            "30 windows: 16 read 3 times, 14 left out by mixture.fraction",
        ),
    ],
)
def test_readings_are_what_the_order_really_gives(
    mixture: MixtureConfig, hmc: str, workload: str, store: Store
) -> None:
    one = plan(mixture)
    found = one.readings(store)
    assert (str(found["hmc"]), str(found["workload"])) == (hmc, workload)
    assert not one.reads_all_alike and plan().reads_all_alike and plan(MixtureConfig()).reads_all_alike
    order = one.order(store)
    rows = np.concatenate([order.batch(step) for step in range(one.total_steps(order))]).tolist()
    index = store.index("train")
    of_set = dict(zip(index.rows.tolist(), index.data_set.tolist(), strict=True))
    times = Counter(rows)
    for name in SIZES:
        counts = [times[row] for row, data_set in of_set.items() if data_set == name and times[row]]
        assert sum(counts) == found[name].total
        assert max(counts) - min(counts) <= 1


def test_windows_that_nobody_asks_about_are_in_no_batch_of_any_split(store: Store) -> None:
    one = plan(left_out=(("hmc", "W"), ("workload", "N1")))
    order = one.order(store)
    rows = np.concatenate([order.batch(step) for step in range(order.steps_per_epoch)])
    index = store.index("train")
    assert sorted(rows) == index.rows[index.label != "W"].tolist()
    assert str(one.readings(store)["hmc"]) == "10 windows: 8 read 3 times, 2 left out by label_map"
    assert len(one.windows(store, "val")) == 4
    with pytest.raises(UserError, match="all val windows are left out by label_map"):
        plan(left_out=(("workload", "rest"), ("workload", "arithmetic"))).windows(store, "val")


def test_a_fraction_is_of_training_alone_and_within_every_larger_one(store: Store) -> None:
    rows = [set(plan(MixtureConfig(fraction=part)).windows(store, "train").rows) for part in (0.1, 0.3, 0.7, 1.0)]
    assert all(small < large for small, large in itertools.pairwise(rows))
    index = store.index("train")
    smallest = index.take(np.isin(index.rows, list(rows[0])))
    kinds = [("workload", "rest"), ("workload", "arithmetic"), *(("hmc", stage) for stage in LABELS["hmc"])]
    assert Counter(zip(smallest.data_set, smallest.label, strict=True)) == dict(
        zip(kinds, (2, 2, *[1] * 5), strict=True)
    )
    other = plan(MixtureConfig(fraction=0.3), seed=2).windows(store, "train")
    assert set(other.rows) != rows[1]
    assert len(plan(MixtureConfig(fraction=0.1)).windows(store, "val")) == 4


@pytest.mark.parametrize(
    ("limits", "steps", "workload"),
    [
        ({}, 18, "30 windows: 30 read 3 times"),
        ({"min_steps": 12}, 18, "30 windows: 30 read 3 times"),
        ({"min_steps": 36}, 36, "30 windows: 30 read 6 times"),
        ({"max_steps": 12}, 12, "30 windows: 30 read 2 times"),
        ({"max_steps": 9}, 9, "30 windows: 15 read once, 15 read 2 times"),
    ],
)
def test_few_windows_are_read_more_often_and_many_less(
    limits: dict[str, int], steps: int, workload: str, store: Store
) -> None:
    one = plan(**limits)
    assert one.total_steps(one.order(store)) == steps
    assert str(one.readings(store)["workload"]) == workload
