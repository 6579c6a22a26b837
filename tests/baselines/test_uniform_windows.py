from pathlib import Path

import numpy as np
import pytest

from neurolm.baselines.uniform_windows import MixedWindowsError, UniformWindows
from neurolm.eeg.shards import Store
from tests.baselines.toy import ELECTRODES, indices, toy_store, toy_window
from tests.tiny import write_store


def test_signals_are_those_of_the_store(tmp_path: Path) -> None:
    store = toy_store(tmp_path)
    train, val = indices(store)
    windows = UniformWindows(store, train, "workload")
    assert windows.channels == ELECTRODES
    signals = windows.signals(val.rows[[3, 0]])
    np.testing.assert_array_equal(signals[1], store.read(val.rows[:1])[0].signal)
    assert signals.shape == (2, 4, 400) and signals.dtype == np.float32


def test_several_shapes_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    odd = [toy_window(number, "s", num_times=600 if number == 5 else 400) for number in range(8)]
    store = Store.open(write_store(tmp_path, {"train": odd, "val": odd[:2]}))
    with pytest.raises(MixedWindowsError, match=r"several shapes.*4 x 400 \(7\), 4 x 600 \(1\)"):
        UniformWindows(store, store.index("train"), "workload")
    windows = UniformWindows(store, store.index("val"), "workload")
    with pytest.raises(MixedWindowsError, match="here 4 x 400"):
        windows.refuse_others(store.index("train"))


def test_the_same_number_of_other_channels_is_refused_when_it_is_read(tmp_path: Path) -> None:
    turned = toy_window(1, "s1", channels=ELECTRODES[::-1])
    store = Store.open(write_store(tmp_path, {"train": [toy_window(0, "s0"), turned], "val": [turned, turned]}))
    windows = UniformWindows(store, store.index("train"), "workload")
    with pytest.raises(MixedWindowsError, match="recording s1-1 at 1 s has the channels C4, C3, FP2, FP1"):
        windows.read(store.index("train").rows)
