"""What stands behind a task's scores: intervals, mistakes by class, calibration, subjects, recordings.

`score` gives the few numbers that a run is judged by, also on validation data in training; this is for the final word.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from neurolm.evaluation import bootstrap, metrics
from neurolm.evaluation.bootstrap import RankedSubjects
from neurolm.evaluation.calibration import Calibration, calibration
from neurolm.evaluation.centring import centred_by_subject
from neurolm.evaluation.predictions import COLUMNS, Predictions, score
from neurolm.evaluation.released import released_scores


@dataclass(frozen=True)
class Intervals:
    """95 % intervals over subjects, by the same draws as balanced accuracy's; None below five subjects."""

    auroc_ci95: list[float] | None
    """Of the draws in which every class occurs; None if that are fewer than half."""
    cohen_kappa_ci95: list[float] | None
    weighted_f1_ci95: list[float] | None
    undefined_auroc_draws: int | None
    """Draws that left a class without a window."""


@dataclass(frozen=True)
class WorstSubject:
    """The subject with the lowest balanced accuracy, the first by id among equals."""

    subject: str
    """Keyed id."""
    balanced_accuracy: float
    num_windows: int


@dataclass(frozen=True)
class SubjectSpread:
    """Balanced accuracy of each subject alone, over the classes that the subject has."""

    median: float
    quartiles: list[float]
    """Lower and upper, interpolated."""
    worst: WorstSubject
    num_lacking_a_class: int
    """Subjects without a window of some class: theirs is the mean over fewer classes."""


@dataclass(frozen=True)
class RecordingScore:
    """One answer a recording: the class of the largest mean log-probability over its windows."""

    num_recordings: int
    balanced_accuracy: float
    balanced_accuracy_ci95: list[float] | None
    auroc: float | None
    auroc_ci95: list[float] | None
    confusion_matrix: list[list[int]]


@dataclass(frozen=True)
class CentredScore:
    """A window's answer relative to its subject's other windows; see `neurolm.evaluation.centring`."""

    balanced_accuracy: float
    balanced_accuracy_ci95: list[float] | None
    auroc: float | None
    auroc_ci95: list[float] | None


@dataclass(frozen=True)
class TaskDetails:
    """The fields of ``results.json`` beside those of ``TaskResult``."""

    intervals: Intervals
    labels: list[str]
    confusion_matrix: list[list[int]]
    """Windows by label (rows) and predicted class (columns), in the order of ``labels``."""
    recall: dict[str, float | None]
    calibration: Calibration
    subjects: SubjectSpread
    recordings: RecordingScore | None
    """None where a recording has windows of several classes."""
    centred_by_subject: CentredScore | None
    """None for more than two classes, or where a subject's windows are all of one."""
    released_protocol: dict[str, float | None] | None
    """None unless the released protocol was asked for."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the intervals beside the scores they belong to."""
        values = asdict(self)
        return values.pop("intervals") | values


def details(predictions: Predictions, *, seed: int = 0) -> TaskDetails:
    """Look closer at a task's answers; ``seed`` is the bootstrap's. Raises ValueError if there is no window."""
    labels, predicted, num_classes = predictions.label_index, predictions.predicted, len(predictions.labels)
    confusion = metrics.confusion_matrix(labels, predicted, num_classes)
    recordings, centred = by_recording(predictions), centred_by_subject(predictions)
    return TaskDetails(
        intervals=intervals(predictions, seed=seed),
        labels=list(predictions.labels),
        confusion_matrix=confusion.tolist(),
        recall=dict(zip(predictions.labels, metrics.recall(confusion), strict=True)),
        calibration=calibration(predictions),
        subjects=subject_spread(predictions),
        recordings=None if recordings is None else _recording_score(recordings, seed),
        centred_by_subject=None if centred is None else _centred_score(centred, seed),
        released_protocol=None
        if predictions.released_answer is None
        else released_scores(labels, predictions.released_answer, num_classes),
    )


def intervals(predictions: Predictions, *, seed: int = 0) -> Intervals:
    """Draw subjects with replacement and score every draw."""
    names, owner = bootstrap.owners(predictions.subject)
    if len(names) < bootstrap.FEWEST_SUBJECTS:
        return Intervals(None, None, None, None)
    each = bootstrap.confusions_by_subject(
        owner, predictions.label_index, predictions.predicted, len(predictions.labels)
    )
    drawn = bootstrap.subject_draws(len(names), seed=seed)
    counts = np.tensordot(drawn, each, axes=1)
    areas = RankedSubjects.of(predictions.rankings, owner).auroc(drawn)
    auroc, kappa, f1 = (
        None if found is None else list(found)
        for found in map(bootstrap.interval, (areas, metrics.cohen_kappa(counts), metrics.weighted_f1(counts)))
    )
    return Intervals(auroc, kappa, f1, int(np.isnan(areas).sum()))


def accuracy_by_subject(predictions: Predictions) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Subjects in order of their ids, the balanced accuracy of each, and their windows by label and predicted class."""
    names, owner = bootstrap.owners(predictions.subject)
    each = bootstrap.confusions_by_subject(
        owner, predictions.label_index, predictions.predicted, len(predictions.labels)
    )
    return names.tolist(), metrics.balanced_accuracy(each), each


def subject_spread(predictions: Predictions) -> SubjectSpread:
    """How differently subjects fare. Raises ValueError if there is no window."""
    names, accuracy, each = accuracy_by_subject(predictions)
    low, median, high = np.percentile(accuracy, [25, 50, 75])
    worst = int(accuracy.argmin())
    return SubjectSpread(
        median=float(median),
        quartiles=[float(low), float(high)],
        worst=WorstSubject(names[worst], float(accuracy[worst]), int(each[worst].sum())),
        num_lacking_a_class=int((each.sum(axis=2) == 0).any(axis=1).sum()),
    )


def by_recording(predictions: Predictions) -> Predictions | None:
    """One row a recording with the mean log-probability of each class over its windows.

    None where a recording has windows of several classes (sleep stages), which no single answer could describe.
    """
    names, first, owner = np.unique(predictions.recording.astype(str), return_index=True, return_inverse=True)
    if (predictions.label_index != predictions.label_index[first][owner]).any():
        return None
    sums = np.zeros((len(names), len(predictions.labels)))
    np.add.at(sums, owner, predictions.log_probabilities)
    columns = {column: getattr(predictions, column)[first] for column in COLUMNS}
    columns["log_likelihoods"] = sums / np.bincount(owner)[:, None]
    return replace(predictions, **columns, released_answer=None, released_text=None)


def _recording_score(recordings: Predictions, seed: int) -> RecordingScore:
    result = score(recordings, seed=seed)
    interval = result.balanced_accuracy_ci95
    return RecordingScore(
        num_recordings=len(recordings),
        balanced_accuracy=result.balanced_accuracy,
        balanced_accuracy_ci95=list(interval) if interval else None,
        auroc=result.auroc,
        auroc_ci95=intervals(recordings, seed=seed).auroc_ci95,
        confusion_matrix=metrics.confusion_matrix(
            recordings.label_index, recordings.predicted, len(recordings.labels)
        ).tolist(),
    )


def _centred_score(centred: Predictions, seed: int) -> CentredScore:
    result = score(centred, seed=seed)
    interval = result.balanced_accuracy_ci95
    return CentredScore(
        balanced_accuracy=result.balanced_accuracy,
        balanced_accuracy_ci95=list(interval) if interval else None,
        auroc=result.auroc,
        auroc_ci95=intervals(centred, seed=seed).auroc_ci95,
    )
