"""Which windows a run reads."""

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


def test_windows_that_nobody_asks_about_are_in_no_batch_of_any_split(store: Store) -> None:
    one = plan(left_out=(("hmc", "W"), ("workload", "N1")))
    order = one.order(store)
    rows = np.concatenate([order.batch(step) for step in range(order.steps_per_epoch)])
    index = store.index("train")
    assert sorted(rows) == index.rows[index.label != "W"].tolist()
    assert len(one.windows(store, "val")) == 4
    with pytest.raises(UserError, match="all val windows are left out by label_map"):
        plan(left_out=(("workload", "rest"), ("workload", "arithmetic"))).windows(store, "val")
