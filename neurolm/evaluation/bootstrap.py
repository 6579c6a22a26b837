"""Intervals from drawing *subjects* with replacement: every score of a draw from a few sums over subjects.

Windows of one subject resemble each other, so drawing windows would promise far too much. A score of counts needs each
subject's confusion matrix only. The area under the ROC curve needs, for each pair of subjects, how many pairs of a
positive window of the one and a negative window of the other are in order: drawn subjects weigh such pairs by the
product of how often they were drawn, ties and all, exactly as if their windows had been copied. Pairs within a subject
therefore weigh more in a draw than in the data: where they are easier than pairs across subjects, and subjects are few,
the interval lies somewhat high.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurolm.evaluation import metrics
from neurolm.evaluation.metrics import Floats, Indices, Ranking

NUM_DRAWS = 2000
FEWEST_SUBJECTS = 5


def subject_draws(num_subjects: int, *, draws: int = NUM_DRAWS, seed: int = 0) -> NDArray[np.int64]:
    """How often each subject is drawn, ``[draws, subjects]``; each draw has as many subjects as there are."""
    chances = np.full(num_subjects, 1 / num_subjects)
    return np.random.default_rng(seed).multinomial(num_subjects, chances, size=draws)


def owners(subjects: Sequence[str] | NDArray[np.object_]) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """The subjects in order of their ids, and the place of each window's subject among them."""
    names, owner = np.unique(np.asarray(subjects, dtype=str), return_inverse=True)
    return names, owner.astype(np.int64)


def confusions_by_subject(
    owner: NDArray[np.int64], labels: Indices, predicted: Indices, num_classes: int
) -> NDArray[np.int64]:
    """Counts ``[subject, label, predicted]``; raises ValueError if an index is no class."""
    metrics.confusion_matrix(labels, predicted, num_classes)
    num_subjects = int(owner.max()) + 1
    places = (owner * num_classes + labels) * num_classes + predicted
    return np.bincount(places, minlength=num_subjects * num_classes**2).reshape(-1, num_classes, num_classes)


def interval(scores: Floats) -> tuple[float, float] | None:
    """The 2.5th to 97.5th percentile of the draws' scores; None if fewer than half of them are defined."""
    defined = scores[np.isfinite(scores)]
    if 2 * len(defined) < len(scores):
        return None
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)


def bootstrap_by_subject(
    subjects: Sequence[str] | NDArray[np.object_],
    labels: Indices,
    predicted: Indices,
    num_classes: int,
    *,
    draws: int = NUM_DRAWS,
    seed: int = 0,
) -> tuple[float, float] | None:
    """The 95 % interval of balanced accuracy when subjects are drawn with replacement; None below five.

    A draw's score is the mean recall over the classes that the drawn subjects have.
    """
    names, owner = owners(subjects)
    if len(names) < FEWEST_SUBJECTS:
        return None
    each = confusions_by_subject(owner, labels, predicted, num_classes)
    drawn = subject_draws(len(names), draws=draws, seed=seed)
    return interval(metrics.balanced_accuracy(np.tensordot(drawn, each, axes=1)))


@dataclass(frozen=True, eq=False)
class RankedSubjects:
    """The area under the ROC curve for any weights of subjects; of several rankings the mean."""

    in_order: NDArray[np.float64]
    """``[rankings, subjects, subjects]``: pairs of a positive of the first and a negative of the second in order."""
    num_positive: NDArray[np.int64]
    """``[rankings, subjects]``."""
    num_negative: NDArray[np.int64]
    """``[rankings, subjects]``."""

    @classmethod
    def of(cls, rankings: Sequence[Ranking], owner: NDArray[np.int64]) -> "RankedSubjects":
        """Count once; a tie is half a pair in order."""
        size = int(owner.max()) + 1
        in_order = np.zeros((len(rankings), size, size))
        for pairs, (is_positive, score) in zip(in_order, rankings, strict=True):
            positives, of_positives = score[is_positive], owner[is_positive]
            for subject in range(size):
                negatives = np.sort(score[~is_positive & (owner == subject)])
                below = np.searchsorted(negatives, positives, "left") + np.searchsorted(negatives, positives, "right")
                pairs[:, subject] = np.bincount(of_positives, weights=below / 2, minlength=size)
        counts = [
            np.stack([np.bincount(owner[chosen], minlength=size) for chosen in wanted])
            for wanted in ([one for one, _ in rankings], [~one for one, _ in rankings])
        ]
        return cls(in_order, *counts)

    def auroc(self, weights: NDArray[np.integer]) -> NDArray[np.float64]:
        """For ``[draws, subjects]``, the score of every draw; NaN where a class has no window."""
        pairs = np.stack([((weights @ one) * weights).sum(axis=1) for one in self.in_order])
        possible = (self.num_positive @ weights.T) * (self.num_negative @ weights.T)
        areas = np.divide(pairs, possible, out=np.full(pairs.shape, np.nan), where=possible > 0)
        return np.asarray(areas.mean(axis=0))
