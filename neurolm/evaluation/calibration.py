"""Whether probabilities mean what they say: of all windows answered with 80 %, are 80 % right?

The probabilities are those of the classes among the allowed answers. The expected calibration error sorts windows by
the probability of the predicted class into equal bins and averages each bin's distance between mean probability and
share of right answers, weighted by its windows (Guo et al. 2017, *On Calibration of Modern Neural Networks*, Eq. 3).
"""

from dataclasses import dataclass

import numpy as np

from neurolm.evaluation.predictions import Predictions

NUM_BINS = 15
"""Equal bins over 0 to 1; the upper edge belongs to a bin. With two classes no window falls below 0.5."""


@dataclass(frozen=True)
class Bin:
    """Windows whose predicted class has a probability in ``(low, high]``."""

    low: float
    high: float
    num_windows: int
    confidence: float
    """Mean probability of the predicted class."""
    accuracy: float
    """Share of right answers."""


@dataclass(frozen=True)
class Calibration:
    """How far probabilities can be believed."""

    expected_calibration_error: float
    """0 to 1, 0 is best."""
    negative_log_likelihood: float
    """Mean of -log(probability of the label), natural logarithm; a log-probability is never below -708."""
    brier: float
    """Mean of the squared differences of all classes' probabilities from 0 or 1, summed over classes: 0 to 2."""
    num_bins: int
    bins: list[Bin]
    """Those that have windows."""


def calibration(predictions: Predictions, num_bins: int = NUM_BINS) -> Calibration:
    """Compare probabilities with labels; raises ValueError if there is no window."""
    if not len(predictions):
        raise ValueError(f"{predictions.task}: no window to calibrate with")
    probabilities, labels = predictions.probabilities, predictions.label_index
    windows = np.arange(len(labels))
    confidence = probabilities[windows, predictions.predicted]
    is_right = predictions.predicted == labels
    place = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    bins = [
        Bin(
            low=index / num_bins,
            high=(index + 1) / num_bins,
            num_windows=int((place == index).sum()),
            confidence=float(confidence[place == index].mean()),
            accuracy=float(is_right[place == index].mean()),
        )
        for index in np.unique(place).tolist()
    ]
    errors = [one.num_windows * abs(one.confidence - one.accuracy) for one in bins]
    wanted = np.eye(len(predictions.labels))[labels]
    return Calibration(
        expected_calibration_error=sum(errors) / len(labels),
        negative_log_likelihood=float(-predictions.log_probabilities[windows, labels].mean()),
        brier=float(((probabilities - wanted) ** 2).sum(axis=1).mean()),
        num_bins=num_bins,
        bins=bins,
    )
