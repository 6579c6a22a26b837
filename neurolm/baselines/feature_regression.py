"""Features of signals and logistic regression.

With shuffled labels the same says what the harness gives where there is nothing to learn. One shuffle would not do:
whatever line it gives separates the classes somewhat, rightly or wrongly (eegmat: 0.67, above chance by the interval
over subjects, which knows nothing of shuffles). So ten regressions learn from a shuffle each and answer in turn.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from neurolm.baselines.fitted import Answers
from neurolm.baselines.logistic_regression import LogisticModel
from neurolm.baselines.uniform_windows import UniformWindows
from neurolm.eeg.reading import WindowSource
from neurolm.eeg.shards import WindowIndex
from neurolm.text.asked import classes_of_windows
from neurolm.text.instructions import Task

NUM_SHUFFLES = 10


class FeatureRegression:
    """Logistic regression on features.

    Args:
        features: of signals ``[windows, channels, times]`` in µV at 200 Hz, a row for each window.
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
        features: Callable[[NDArray[np.float32]], NDArray[np.float64]],
        task: Task,
        source: WindowSource,
        train: WindowIndex,
        *,
        seed: int,
        batch_size: int,
        shuffled: bool = False,
    ) -> None:
        self._features, self._task, self._batch_size = features, task, batch_size
        self._windows = UniformWindows(source, train, task.name)
        classes = classes_of_windows(train, task)
        learnt = [classes]
        if shuffled:
            rng = np.random.default_rng(seed)
            learnt = [rng.permutation(classes) for _ in range(NUM_SHUFFLES)]
        found = self._of_windows(self._windows, train.rows)
        self._models = [LogisticModel(found, one, train.subject, seed) for one in learnt]

    @property
    def num_parameters(self) -> int:
        """Weights and biases of a regression."""
        return self._models[0].num_parameters

    def answers(self, source: WindowSource, index: WindowIndex) -> Answers:
        """Log-probabilities of the regression, or of the regressions in turn. Raises MixedWindowsError."""
        self._windows.refuse_others(index)
        found = self._of_windows(self._windows.of(source), index.rows)
        each = [model.answers(found, len(self._task.answers)).log_likelihoods for model in self._models]
        windows = np.arange(len(index))
        return Answers.of(np.stack(each)[windows % len(each), windows])

    def _of_windows(self, windows: UniformWindows, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        starts = range(0, len(rows), self._batch_size)
        parts = [self._features(windows.signals(rows[start : start + self._batch_size])) for start in starts]
        return np.concatenate(parts).reshape(len(rows), -1)
