"""The answer without looking: how often each class comes among the training windows."""

import numpy as np

from neurolm.baselines.fitted import Answers, spread
from neurolm.eeg.reading import WindowSource
from neurolm.eeg.shards import WindowIndex
from neurolm.text.asked import classes_of_windows
from neurolm.text.instructions import Task


class Majority:
    """Every window is answered with the class that most training windows have. Raises TaskError."""

    num_parameters = 0
    validation_score = None

    def __init__(self, task: Task, train: WindowIndex) -> None:
        self._num_classes = len(task.answers)
        self._classes, counts = np.unique(classes_of_windows(train, task), return_counts=True)
        self._log_shares = np.log(counts / counts.sum())

    def answers(self, source: WindowSource, index: WindowIndex) -> Answers:
        """The same for every window."""
        return spread(self._classes, np.tile(self._log_shares, (len(index), 1)), self._num_classes)
