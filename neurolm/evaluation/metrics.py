"""Scores of class answers, each defined for any labels that occur: a missing class never crashes, warns or flatters.

Classes are indices 0..num_classes-1. The released code feeds hard answers to AUROC, which makes it the balanced
accuracy, and counts an unreadable answer as the last class; here ranks come from the answers' log-likelihoods and
every window has a predicted class (the reference values of both are in the golden recordings).
scikit-learn is imported where it is used: a second that many processes would pay for nothing.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.integer]
Floats = NDArray[np.floating]
Ranking = tuple[NDArray[np.bool_], Floats]
"""Which windows are positive, and the scores that should be larger for them."""


def confusion_matrix(labels: Indices, predicted: Indices, num_classes: int) -> NDArray[np.int64]:
    """Counts ``[label, predicted]``; raises ValueError if an index is no class."""
    for name, indices in (("label", labels), ("predicted class", predicted)):
        if len(indices) and (indices.min() < 0 or indices.max() >= num_classes):
            raise ValueError(f"{name} {indices.min()}..{indices.max()} is outside the {num_classes} classes")
    counts = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def balanced_accuracy(confusion: NDArray[np.generic]) -> NDArray[np.float64]:
    """The mean recall over the classes that occur, of one or of many confusion matrices ``[..., label, predicted]``."""
    windows = confusion.sum(axis=-1).astype(float)
    correct = np.diagonal(confusion, axis1=-2, axis2=-1)
    recall = np.divide(correct, windows, out=np.zeros_like(windows), where=windows > 0)
    return recall.sum(axis=-1) / (windows > 0).sum(axis=-1)


def recall(confusion: NDArray[np.generic]) -> list[float | None]:
    """The share of each class's windows that are answered rightly; None for a class that does not occur."""
    windows = confusion.sum(axis=1)
    return [float(confusion[index, index] / total) if total else None for index, total in enumerate(windows)]


def cohen_kappa(confusion: NDArray[np.generic]) -> NDArray[np.float64]:
    """Agreement beyond chance, of one or of many confusion matrices ``[..., label, predicted]``.

    It is 0 where chance alone agrees fully (one class, always predicted).
    """
    total = confusion.sum(axis=(-2, -1)).astype(float)
    observed = np.trace(confusion, axis1=-2, axis2=-1) / total
    expected = (confusion.sum(axis=-1) * confusion.sum(axis=-2)).sum(axis=-1) / total**2
    beyond = 1 - expected
    return np.divide(observed - expected, beyond, out=np.zeros_like(beyond), where=beyond > 0)


def weighted_f1(confusion: NDArray[np.generic]) -> NDArray[np.float64]:
    """F1 of each class, weighted by how often it occurs, of one or of many matrices ``[..., label, predicted]``.

    A class that is never predicted rightly has 0.
    """
    labelled, predicted = confusion.sum(axis=-1).astype(float), confusion.sum(axis=-2)
    correct = np.diagonal(confusion, axis1=-2, axis2=-1)
    both = labelled + predicted
    f1 = np.divide(2 * correct, both, out=np.zeros_like(both), where=both > 0)
    return (f1 * labelled).sum(axis=-1) / labelled.sum(axis=-1)


def auroc(is_positive: NDArray[np.bool_], score: Floats) -> float | None:
    """Area under the ROC curve of ``score``; None unless both classes occur."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(is_positive, score)) if _has_both(is_positive) else None


def auc_pr(is_positive: NDArray[np.bool_], score: Floats) -> float | None:
    """Average precision, the area under the precision-recall curve; None unless both classes occur."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(is_positive, score)) if _has_both(is_positive) else None


def mean_auroc(rankings: Sequence[Ranking]) -> float | None:
    """The mean of `auroc` over rankings, such as one class against the rest; None unless all are defined."""
    areas = [auroc(is_positive, score) for is_positive, score in rankings]
    defined = [area for area in areas if area is not None]
    return float(np.mean(defined)) if len(defined) == len(areas) else None


def _has_both(is_positive: NDArray[np.bool_]) -> bool:
    return bool(is_positive.any() and not is_positive.all())
