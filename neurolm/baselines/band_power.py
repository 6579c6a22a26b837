"""Log band power and logistic regression: the yardstick that needs neither a network nor a GPU.

Welch's spectrum of every channel in segments of two seconds, averaged within the bands of clinical EEG up to 45 Hz,
where muscle and mains begin; its logarithm, since power is nearer to lognormal than to normal.

With shuffled labels the same says what the harness gives where there is nothing to learn. One shuffle would not do:
whatever line it gives separates the classes somewhat, rightly or wrongly (eegmat: 0.67, above chance by the interval
over subjects, which knows nothing of shuffles). So ten regressions learn from a shuffle each and answer in turn.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.signal import welch

from neurolm.baselines.fitted import Answers
from neurolm.baselines.logistic_regression import LogisticModel
from neurolm.baselines.uniform_windows import UniformWindows
from neurolm.eeg.reading import WindowSource
from neurolm.eeg.shards import WindowIndex
from neurolm.text.asked import classes_of_windows
from neurolm.text.instructions import Task

SAMPLING_RATE_HZ = 200
SEGMENT_TIMES = 400
"""Time points of a segment: two seconds, half a hertz between frequencies."""
BANDS_HZ = {"delta": (1, 4), "theta": (4, 8), "alpha": (8, 13), "beta": (13, 30), "gamma": (30, 45)}
"""The lower end belongs to a band."""
SMALLEST_POWER = 1e-6
"""µV²/Hz; a flat channel has no less."""
NUM_SHUFFLES = 10


class BandPower:
    """Logistic regression on log band power.

    Args:
        task: that is learnt.
        source: a store.
        train: training windows.
        seed: of the solver and of the shuffling.
        batch_size: windows that are read at a time.
        shuffled: learn from labels that were dealt out anew among the training windows, ten times.

    Raises:
        UserError: too few subjects or classes, a label without an answer, or windows of several shapes.
    """

    validation_score = None

    def __init__(
        self,
        task: Task,
        source: WindowSource,
        train: WindowIndex,
        *,
        seed: int,
        batch_size: int,
        shuffled: bool = False,
    ) -> None:
        self._task, self._batch_size = task, batch_size
        self._windows = UniformWindows(source, train, task.name)
        classes = classes_of_windows(train, task)
        learnt = [classes]
        if shuffled:
            rng = np.random.default_rng(seed)
            learnt = [rng.permutation(classes) for _ in range(NUM_SHUFFLES)]
        features = window_features(self._windows, train.rows, batch_size)
        self._models = [LogisticModel(features, one, train.subject, seed) for one in learnt]

    @property
    def num_parameters(self) -> int:
        """Weights and biases of a regression."""
        return self._models[0].num_parameters

    def answers(self, source: WindowSource, index: WindowIndex) -> Answers:
        """Log-probabilities of the regression, or of the regressions in turn. Raises MixedWindowsError."""
        self._windows.refuse_others(index)
        features = window_features(self._windows.of(source), index.rows, self._batch_size)
        each = [model.answers(features, len(self._task.answers)).log_likelihoods for model in self._models]
        windows = np.arange(len(index))
        return Answers.of(np.stack(each)[windows % len(each), windows])


def window_features(windows: UniformWindows, rows: NDArray[np.int64], batch_size: int) -> NDArray[np.float64]:
    """``[windows, channels x bands]`` of log10 of µV²/Hz."""
    parts = [
        log_band_power(windows.signals(rows[start : start + batch_size])) for start in range(0, len(rows), batch_size)
    ]
    return np.concatenate(parts).reshape(len(rows), -1)


def log_band_power(signals: NDArray[np.float32]) -> NDArray[np.float64]:
    """``[windows, channels, bands]`` of signals ``[windows, channels, times]`` in µV at 200 Hz."""
    segment = min(SEGMENT_TIMES, signals.shape[-1])
    frequencies, density = welch(signals.astype(np.float64), fs=SAMPLING_RATE_HZ, nperseg=segment)
    means = [density[..., (frequencies >= low) & (frequencies < high)].mean(axis=-1) for low, high in BANDS_HZ.values()]
    return np.asarray(np.log10(np.maximum(np.stack(means, axis=-1), SMALLEST_POWER)))
