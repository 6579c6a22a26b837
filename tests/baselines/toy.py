"""A store of two classes that differ in one rhythm, and the windows of its splits."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from neurolm.baselines.settings import BaselineRun
from neurolm.config import build
from neurolm.eeg.channels import CHANNELS
from neurolm.eeg.shards import Store, StoredWindow, WindowIndex
from neurolm.text.instructions import TASKS
from tests.tiny import write_store

TASK = TASKS["workload"]
LABELS = tuple(TASK.answers)
ELECTRODES = ("FP1", "FP2", "C3", "C4")


def toy_window(
    number: int, subject: str, *, num_times: int = 400, channels: Sequence[str] = ELECTRODES
) -> StoredWindow:
    """Noise of 10 µV; every other window has 10 Hz of 30 µV in it, in any phase."""
    rng = np.random.default_rng(number)
    signal = 10 * rng.standard_normal((len(channels), num_times))
    if number % 2:
        signal += 30 * np.sin(2 * np.pi * (10 * np.arange(num_times) / 200 + rng.random()))
    return StoredWindow(
        signal=signal.astype(np.float32),
        channel_indices=np.array([CHANNELS.index(name) for name in channels], dtype=np.int16),
        data_set=TASK.data_set,
        subject=subject,
        recording=f"{subject}-{number % 2}",
        start_s=float(number),
        label=LABELS[number % 2],
    )


def toy_store(folder: Path, **shape: int) -> Store:
    """Six subjects to train on with eight windows each, two to validate on."""
    parts = {
        "train": [toy_window(number, f"s{number // 8}", **shape) for number in range(48)],
        "val": [toy_window(number, f"v{number // 108}", **shape) for number in range(100, 116)],
    }
    return Store.open(write_store(folder, parts))


def indices(store: Store) -> tuple[WindowIndex, WindowIndex]:
    """Training and validation windows."""
    return store.index("train"), store.index("val")


def toy_run(out: Path, **settings: object) -> BaselineRun:
    """Settings of a few quick steps."""
    values = {
        "out": str(out),
        "baselines": ["majority"],
        "training": {
            "epochs": 8,
            "batch_size": 16,
            "validations": 4,
            "optimizer": {"learning_rate": 2e-3, "beta2": 0.999, "weight_decay": 0.0},
        },
        "training_of": {"labram": {"optimizer.learning_rate": 1e-3}},
    }
    return build(BaselineRun, values | settings, source="test")
