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

BOOTSTRAP_DRAWS = 2000
FEWEST_SUBJECTS = 5


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


def cohen_kappa(confusion: NDArray[np.generic]) -> float:
    """Agreement beyond chance; 0 where chance alone agrees fully (one class, always predicted)."""
    total = confusion.sum()
    observed = np.trace(confusion) / total
    expected = float(confusion.sum(axis=0) @ confusion.sum(axis=1)) / float(total) ** 2
    return float((observed - expected) / (1 - expected)) if expected < 1 else 0.0


def weighted_f1(labels: Indices, predicted: Indices, num_classes: int) -> float:
    """F1 of each class, weighted by how often it occurs."""
    from sklearn.metrics import f1_score

    classes = list(range(num_classes))
    return float(f1_score(labels, predicted, labels=classes, average="weighted", zero_division=0.0))


def auroc(is_positive: NDArray[np.bool_], score: Floats) -> float | None:
    """Area under the ROC curve of ``score``; None unless both classes occur."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(is_positive, score)) if _has_both(is_positive) else None


def auc_pr(is_positive: NDArray[np.bool_], score: Floats) -> float | None:
    """Average precision, the area under the precision-recall curve; None unless both classes occur."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(is_positive, score)) if _has_both(is_positive) else None


def macro_auroc(labels: Indices, probabilities: Floats) -> float | None:
    """The mean over classes of one-against-the-rest AUROC; None unless every class occurs."""
    areas = [auroc(labels == index, probabilities[:, index]) for index in range(probabilities.shape[1])]
    present = [area for area in areas if area is not None]
    return float(np.mean(present)) if len(present) == len(areas) else None


def bootstrap_by_subject(
    subjects: Sequence[str] | NDArray[np.object_],
    labels: Indices,
    predicted: Indices,
    num_classes: int,
    *,
    draws: int = BOOTSTRAP_DRAWS,
    seed: int = 0,
) -> tuple[float, float] | None:
    """The 95 % interval of balanced accuracy when *subjects* are drawn with replacement; None below five.

    Windows of one subject resemble each other, so drawing windows would promise far too much. A draw's score is the
    mean recall over the classes that the drawn subjects have. The interval holds the 2.5th to 97.5th percentile.
    """
    names, owner = np.unique(np.asarray(subjects, dtype=str), return_inverse=True)
    if len(names) < FEWEST_SUBJECTS:
        return None
    each = np.stack(
        [
            confusion_matrix(labels[owner == index], predicted[owner == index], num_classes)
            for index in range(len(names))
        ]
    )
    times_drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    scores = balanced_accuracy(np.tensordot(times_drawn, each, axes=1))
    low, high = np.percentile(scores, [2.5, 97.5])
    return float(low), float(high)


def _has_both(is_positive: NDArray[np.bool_]) -> bool:
    return bool(is_positive.any() and not is_positive.all())
