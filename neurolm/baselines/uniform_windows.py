"""Windows of one montage and one length, which is all that most baselines can read."""

import copy
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from neurolm.config import UserError
from neurolm.eeg.channels import CHANNELS
from neurolm.eeg.reading import WindowSource
from neurolm.eeg.shards import StoredWindow, WindowIndex


class MixedWindowsError(UserError):
    """Windows of several montages or lengths where a baseline needs one."""


class UniformWindows:
    """Reads windows of a source and makes sure that they all have the channels and the length of the first.

    Args:
        source: a store.
        train: the training windows, at least one; they say what all others have to be like.
        task: name of the task, for errors.

    Raises:
        MixedWindowsError: the training windows have several shapes.
    """

    def __init__(self, source: WindowSource, train: WindowIndex, task: str) -> None:
        self._source, self._task = source, task
        self.num_channels, self.num_times = int(train.num_channels[0]), int(train.num_times[0])
        self._channel_indices = tuple(int(one) for one in source.read(train.rows[:1])[0].channel_indices)
        self.refuse_others(train)

    def of(self, source: WindowSource) -> "UniformWindows":
        """The same for another source, such as the store once its test split was opened."""
        other = copy.copy(self)
        other._source = source
        return other

    def refuse_others(self, index: WindowIndex) -> None:
        """Look at an index before its windows are read. Raises MixedWindowsError."""
        shapes = Counter(zip(index.num_channels.tolist(), index.num_times.tolist(), strict=True))
        if set(shapes) - {(self.num_channels, self.num_times)}:
            told = ", ".join(f"{channels} x {times} ({n})" for (channels, times), n in sorted(shapes.items()))
            raise MixedWindowsError(
                f"task {self._task}: found windows of several shapes, as channels x time points (windows): {told}; a "
                f"baseline reads one, here {self.num_channels} x {self.num_times}. Preprocess the data set with the "
                "same channels and seconds everywhere, or leave the odd recordings out"
            )

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels, in order."""
        return tuple(CHANNELS[one] for one in self._channel_indices)

    def read(self, rows: NDArray[np.int64] | Sequence[int]) -> list[StoredWindow]:
        """Windows in the order asked. Raises MixedWindowsError."""
        return self._checked(self._source.read(rows))

    def views(self, rows: NDArray[np.int64] | Sequence[int]) -> list[StoredWindow]:
        """The same, which nobody may change. Raises MixedWindowsError."""
        return self._checked(self._source.views(rows))

    def keep_row_groups(self, number: int) -> None:
        """Make room for so many decoded row groups."""
        self._source.keep_row_groups(number)

    def signals(self, rows: NDArray[np.int64] | Sequence[int]) -> NDArray[np.float32]:
        """``[windows, channels, times]`` in µV at 200 Hz. Raises MixedWindowsError."""
        windows = self.read(rows)
        return np.stack([np.asarray(window.signal, dtype=np.float32) for window in windows])

    def _checked(self, windows: list[StoredWindow]) -> list[StoredWindow]:
        for window in windows:
            found = tuple(int(one) for one in window.channel_indices)
            if found != self._channel_indices or window.signal.shape != (self.num_channels, self.num_times):
                raise MixedWindowsError(
                    f"task {self._task}: recording {window.recording} at {window.start_s:g} s has the channels "
                    f"{', '.join(CHANNELS[one] for one in found)} and {window.signal.shape[1]} times; the first window "
                    f"has {', '.join(self.channels)} and {self.num_times}. A baseline reads one montage and one length"
                )
        return windows
