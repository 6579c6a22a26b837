"""Two models on the same windows: is the difference more than which subjects happened to be tested?

The interval draws subjects with replacement, the same ones for both. The test exchanges the two models' answers subject
by subject: if the models are equally good, which of the two answered is a coin toss, and the difference found is one
of those that tosses give (Fisher's sign flips, for scores that are not means over subjects). With few subjects every
toss is tried; with more, a fixed number are drawn. Of several seeds of a model the mean score counts, and all its
answers about a subject change sides together.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from neurolm.config import UserError
from neurolm.evaluation import bootstrap, metrics
from neurolm.evaluation.bootstrap import FEWEST_SUBJECTS, RankedSubjects
from neurolm.evaluation.predictions import COLUMNS, Predictions

NUM_EXCHANGES = 10_000
"""Exchanges that are drawn where there are too many subjects (14 or more) to try all."""
ROUNDING = 1e-12
"""Differences that are equal but for rounding count as equal."""


class ComparisonError(UserError):
    """Two runs that cannot be compared window by window."""


@dataclass(frozen=True)
class Difference:
    """A score of both models and what lies between."""

    a: float
    b: float
    difference: float
    """B minus A: positive where B is better."""
    difference_ci95: list[float] | None
    """Over subjects, paired; None below five subjects."""
    p_value: float
    """Two-sided: the share of exchanges with a difference at least as large."""


@dataclass(frozen=True)
class Comparison:
    """One task of two models."""

    num_windows: int
    num_subjects: int
    balanced_accuracy: Difference
    auroc: Difference | None
    """None if a class is missing."""
    num_exchanges: int
    all_exchanges: bool
    """Whether every exchange was tried, so that the p-values are exact."""
    smallest_p_value: float
    """What no p-value of so few subjects can fall below."""


def compare(a: Predictions, b: Predictions, *, seed: int = 0) -> Comparison:
    """Compare two models' answers to the same windows; ``seed`` draws subjects and exchanges.

    Raises:
        ComparisonError: the windows, their labels or the classes are not the same.
    """
    return compare_means([a], [b], seed=seed)


def compare_means(a: Sequence[Predictions], b: Sequence[Predictions], *, seed: int = 0) -> Comparison:
    """The same for the mean scores of several runs of each model, such as seeds; neither needs as many as the other.

    Raises:
        ComparisonError: the windows, their labels or the classes are not the same.
    """
    if not a or not b:
        raise ComparisonError("nothing to compare: a model has no run")
    first = a[0]
    sides = [[aligned(first, one)[1] for one in runs] for runs in (a, b)]
    names, owner = bootstrap.owners(sides[0][0].subject)
    size = len(names)
    counts = np.concatenate([_mean_confusions(owner, runs) for runs in sides])
    # AUROC has to rank exchanged answers against each other: every run of A beside every run of B.
    ranked = [_ranked(one, other, owner) for one in sides[0] for other in sides[1]]

    def accuracy(weights: NDArray[np.int64]) -> NDArray[np.float64]:
        return metrics.balanced_accuracy(np.tensordot(weights, counts, axes=1))

    def auroc(weights: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(np.mean([pair.auroc(weights) for pair in ranked], axis=0))

    drawn = bootstrap.subject_draws(size, seed=seed) if size >= FEWEST_SUBJECTS else None
    exchanged, is_complete = exchanges(size, seed=seed)
    by_answers = _difference(accuracy, exchanged, is_complete, drawn)
    assert by_answers is not None
    return Comparison(
        num_windows=len(first),
        num_subjects=size,
        balanced_accuracy=by_answers,
        auroc=_difference(auroc, exchanged, is_complete, drawn),
        num_exchanges=len(exchanged),
        all_exchanges=is_complete,
        smallest_p_value=2 / 2**size if is_complete else 1 / (len(exchanged) + 1),
    )


def _mean_confusions(owner: NDArray[np.int64], runs: Sequence[Predictions]) -> NDArray[np.float64]:
    """Counts ``[subject, label, predicted]``, averaged over runs: their balanced accuracy is the mean of the runs'."""
    each = [
        bootstrap.confusions_by_subject(owner, one.label_index, one.predicted, len(one.labels)) for one in runs
    ]  # fmt: skip
    return np.asarray(np.mean(each, axis=0))


def _ranked(a: Predictions, b: Predictions, owner: NDArray[np.int64]) -> RankedSubjects:
    pairs = zip(a.rankings, b.rankings, strict=True)
    rankings = [(np.tile(positive, 2), np.concatenate([ranks, other])) for (positive, ranks), (_, other) in pairs]
    return RankedSubjects.of(rankings, np.concatenate([owner, owner + int(owner.max()) + 1]))


def exchanges(num_subjects: int, *, seed: int = 0) -> tuple[NDArray[np.int64], bool]:
    """Which subjects' answers change sides, ``[exchanges, subjects]`` of 0 and 1, and whether these are all."""
    if 2**num_subjects <= NUM_EXCHANGES:
        return np.array(list(product((0, 1), repeat=num_subjects)), dtype=np.int64), True
    return np.random.default_rng(seed).integers(0, 2, size=(NUM_EXCHANGES, num_subjects)), False


def _difference(
    scores: Callable[[NDArray[np.int64]], NDArray[np.float64]],
    exchanged: NDArray[np.int64],
    is_complete: bool,
    drawn: NDArray[np.int64] | None,
) -> Difference | None:
    """Of a score for weights ``[cases, subjects of A and of B]``; None where it is not defined."""
    everyone = np.ones((1, exchanged.shape[1]), dtype=np.int64)
    nobody = np.zeros_like(everyone)
    a, b = float(scores(_of(everyone, nobody))[0]), float(scores(_of(nobody, everyone))[0])
    if np.isnan(a):
        return None
    found = scores(_of(exchanged, 1 - exchanged)) - scores(_of(1 - exchanged, exchanged))
    as_large = int((np.abs(found) >= abs(b - a) - ROUNDING).sum())
    interval = None
    if drawn is not None:
        interval = bootstrap.interval(scores(_of(0 * drawn, drawn)) - scores(_of(drawn, 0 * drawn)))
    return Difference(
        a=a,
        b=b,
        difference=b - a,
        difference_ci95=None if interval is None else list(interval),
        p_value=as_large / len(found) if is_complete else (as_large + 1) / (len(found) + 1),
    )


def _of(weights_of_a: NDArray[np.int64], weights_of_b: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([weights_of_a, weights_of_b], axis=1)


def aligned(a: Predictions, b: Predictions) -> tuple[Predictions, Predictions]:
    """Both in one order of windows. Raises ComparisonError unless they are of the same windows."""
    for name in ("task", "labels", "positive_class", "split"):
        if getattr(a, name) != getattr(b, name):
            raise ComparisonError(
                f"{a.task}: the runs differ in {name} ({getattr(a, name)} and {getattr(b, name)}), so their answers "
                "cannot be paired"
            )
    windows_a, windows_b = (_windows(one) for one in (a, b))
    both = sum((Counter(windows_a) & Counter(windows_b)).values())
    if not len(a) == len(b) == both:
        raise ComparisonError(
            f"{a.task}: {both} windows are in both runs, of {len(a)} in A and {len(b)} in B; a paired comparison "
            "needs the same ones with the same labels, so evaluate both models on one store (one NEUROLM_HOME, one key)"
        )
    if not both:
        raise ComparisonError(f"{a.task}: there is no window to compare")
    return _ordered(a, windows_a), _ordered(b, windows_b)


def _windows(one: Predictions) -> list[tuple[str, str, float, int]]:
    places = zip(one.subject, one.recording, one.start_s, one.label_index, strict=True)
    return [(str(subject), str(recording), float(start), int(label)) for subject, recording, start, label in places]


def _ordered(one: Predictions, windows: list[tuple[str, str, float, int]]) -> Predictions:
    # Windows that nothing tells apart (one signal, published twice) stand in the order of the store.
    order = sorted(range(len(windows)), key=lambda place: (windows[place], int(one.row[place])))
    columns = {column: getattr(one, column)[order] for column in COLUMNS}
    return Predictions(one.task, one.labels, one.positive_class, one.split, **columns)
