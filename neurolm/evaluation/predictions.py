"""What a model answered, window by window, kept so that a changed metric applies to old runs; and its score.

The predicted class is the one whose answer has the largest log-likelihood. Whether the freely generated (greedy)
answer was one of the allowed ones is kept beside it and never turned into a class.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from neurolm.config import UserError
from neurolm.evaluation import metrics
from neurolm.evaluation.bootstrap import bootstrap_by_subject
from neurolm.evaluation.metrics import Ranking

SCHEMA_VERSION = 1
METADATA_KEY = b"neurolm.predictions"
COLUMNS = ("row", "recording", "subject", "start_s", "label_index", "log_likelihoods", "greedy_valid")
RELEASED_COLUMNS = ("released_answer", "released_text")
"""Only where the released protocol was asked for."""
FLOOR = float(np.log(np.finfo(float).tiny))
"""The smallest log-probability, -708: an answer thought impossible costs much and not infinitely much."""


class PredictionsError(UserError):
    """A predictions file that cannot be read."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Answers to one task; arrays have one entry per window.

    Recordings and subjects are keyed ids, never names. Log-likelihoods are natural logarithms of the probability of
    each allowed answer's text after the prompt; they need not sum to one as probabilities.
    """

    task: str
    labels: tuple[str, ...]
    """The classes, in the order of the task's answers."""
    positive_class: int | None
    """Index of the class that a binary task asks for ("Yes"); None otherwise."""
    split: str
    row: NDArray[np.int64]
    """Row of the window in its store."""
    recording: NDArray[np.object_]
    subject: NDArray[np.object_]
    start_s: NDArray[np.float64]
    label_index: NDArray[np.int64]
    log_likelihoods: NDArray[np.float64]
    """``[windows, classes]``."""
    greedy_valid: NDArray[np.bool_]
    """Whether the greedy answer was one of the allowed ones."""
    released_answer: NDArray[np.int64] | None = None
    """The class that the released protocol reads (`neurolm.evaluation.released`), -1 for none; None: not asked for."""
    released_text: NDArray[np.object_] | None = None
    """What was written after the prompt when the released protocol was asked for."""

    def __post_init__(self) -> None:
        kinds = {
            "row": np.int64,
            "label_index": np.int64,
            "start_s": float,
            "greedy_valid": bool,
            "log_likelihoods": float,
        }
        for column in COLUMNS:
            object.__setattr__(self, column, np.asarray(getattr(self, column), dtype=kinds.get(column, object)))
        for column, kind in zip(RELEASED_COLUMNS, (np.int64, object), strict=True):
            if getattr(self, column) is not None:
                object.__setattr__(self, column, np.asarray(getattr(self, column), dtype=kind))
        object.__setattr__(self, "labels", tuple(self.labels))
        sizes = {column: len(getattr(self, column)) for column in self.columns}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"{self.task}: columns of different lengths: {sizes}")
        if len(self.labels) < 2 or self.log_likelihoods.shape != (len(self), len(self.labels)):
            raise ValueError(f"{self.task}: log-likelihoods {self.log_likelihoods.shape} for classes {self.labels}")
        best = self.log_likelihoods.max(axis=1, initial=-np.inf)
        broken = ~np.isfinite(best) | np.isnan(self.log_likelihoods).any(axis=1)
        if broken.any():
            raise ValueError(
                f"{self.task}: {broken.sum()} of {len(self)} windows have log-likelihoods that are not numbers"
            )
        if len(self) and not 0 <= self.label_index.min() <= self.label_index.max() < len(self.labels):
            raise ValueError(f"{self.task}: a label index is outside the classes {self.labels}")
        if self.positive_class is not None and self.positive_class not in range(len(self.labels)):
            raise ValueError(f"{self.task}: positive class {self.positive_class} is outside the classes {self.labels}")

    def __len__(self) -> int:
        return len(self.row)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the arrays that are there."""
        return COLUMNS + tuple(name for name in RELEASED_COLUMNS if getattr(self, name) is not None)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """``[windows, classes]``: the probability of each class given that one of the allowed answers is given."""
        odds = np.exp(self.log_likelihoods - self.log_likelihoods.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)

    @property
    def log_probabilities(self) -> NDArray[np.float64]:
        """``[windows, classes]``: logarithms of `probabilities`, without their rounding and never below `FLOOR`."""
        relative = self.log_likelihoods - self.log_likelihoods.max(axis=1, keepdims=True)
        return np.maximum(relative - np.log(np.exp(relative).sum(axis=1, keepdims=True)), FLOOR)

    @property
    def rankings(self) -> list[Ranking]:
        """What AUROC ranks: windows of the positive class by its log-odds; of several classes each by its probability.

        Two classes of which none is declared positive rank the second.
        """
        if len(self.labels) > 2:
            return [(self.label_index == index, self.probabilities[:, index]) for index in range(len(self.labels))]
        positive = 1 if self.positive_class is None else self.positive_class
        # The log-odds rank windows as the probability does and do not saturate at 1.
        odds = self.log_likelihoods[:, positive] - self.log_likelihoods[:, 1 - positive]
        return [(self.label_index == positive, np.clip(odds, -np.finfo(float).max, np.finfo(float).max))]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """``[windows]``: the class of the largest log-likelihood, the first of equals."""
        return self.log_likelihoods.argmax(axis=1)

    def save(self, path: Path) -> None:
        """Write Parquet, whole or not at all; what is the same for all windows stands in the file's metadata."""
        about = {"schema": SCHEMA_VERSION, "task": self.task, "labels": self.labels, "split": self.split}
        about["positive_class"] = self.positive_class
        columns: dict[str, Any] = {column: getattr(self, column) for column in self.columns}
        columns["log_likelihoods"] = pa.array(list(self.log_likelihoods), pa.list_(pa.float64(), len(self.labels)))
        columns["recording"] = pa.array(self.recording, pa.string())
        columns["subject"] = pa.array(self.subject, pa.string())
        columns["label"] = pa.array([self.labels[index] for index in self.label_index], pa.string())
        columns["predicted"] = pa.array([self.labels[index] for index in self.predicted], pa.string())
        table = pa.table(columns).replace_schema_metadata({METADATA_KEY: json.dumps(about).encode()})
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.unfinished")
        pq.write_table(table, unfinished, compression="zstd")
        unfinished.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Predictions":
        """Read what ``save`` wrote. Raises PredictionsError."""
        try:
            table = pq.ParquetFile(path).read()
        except (OSError, pa.ArrowInvalid) as error:
            raise PredictionsError(f"{path}: no readable predictions ({error})") from None
        about = json.loads((table.schema.metadata or {}).get(METADATA_KEY, b"{}"))
        if about.get("schema") != SCHEMA_VERSION:
            raise PredictionsError(
                f"{path}: not a predictions file of this version (schema {about.get('schema')}, expected "
                f"{SCHEMA_VERSION}); expected a file that `evaluate` wrote"
            )
        if missing := set(COLUMNS) - set(table.column_names):
            raise PredictionsError(f"{path}: columns are missing: {', '.join(sorted(missing))}; evaluate again")
        names = [column for column in (*COLUMNS, *RELEASED_COLUMNS) if column in table.column_names]
        columns = {column: table[column].to_numpy() for column in names if column != "log_likelihoods"}
        flat = table["log_likelihoods"].combine_chunks().flatten().to_numpy()
        try:
            return cls(
                task=about["task"],
                labels=tuple(about["labels"]),
                positive_class=about["positive_class"],
                split=about["split"],
                log_likelihoods=flat.reshape(-1, len(about["labels"])),
                **columns,
            )
        except ValueError as error:
            raise PredictionsError(f"{path}: {error}; evaluate again") from None


def concatenate(parts: Sequence[Predictions]) -> Predictions:
    """The windows of several workers or folds, in order of rows; raises ValueError if one comes twice."""
    if not parts:
        raise ValueError("no predictions to concatenate")
    first = parts[0]
    for part in parts:
        for name in ("task", "labels", "positive_class", "split", "columns"):
            if getattr(part, name) != getattr(first, name):
                raise ValueError(f"predictions differ in {name}: {getattr(part, name)} and {getattr(first, name)}")
    columns = {column: np.concatenate([getattr(part, column) for part in parts]) for column in first.columns}
    if len(np.unique(columns["row"])) != len(columns["row"]):
        raise ValueError(f"{first.task}: a window was answered twice ({len(columns['row'])} answers)")
    order = np.argsort(columns["row"])
    columns = {column: values[order] for column, values in columns.items()}
    return Predictions(first.task, first.labels, first.positive_class, first.split, **columns)


@dataclass(frozen=True)
class TaskResult:
    """The score of one task, per window; the fields are those of ``results.json``."""

    split: str
    num_windows: int
    num_recordings: int
    num_subjects: int
    balanced_accuracy: float
    balanced_accuracy_ci95: tuple[float, float] | None
    """From a bootstrap over subjects; None below five subjects."""
    auroc: float | None
    """Of the positive class; of more than two classes the mean of one against the rest; None if one is missing."""
    auc_pr: float | None
    """Of the positive class; None without one, or if a class is missing."""
    cohen_kappa: float
    weighted_f1: float
    invalid_answer_rate: float
    """The share of windows whose greedy answer is none of the allowed ones."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["balanced_accuracy_ci95"] = list(self.balanced_accuracy_ci95) if self.balanced_accuracy_ci95 else None
        return values


def score(predictions: Predictions, *, seed: int = 0) -> TaskResult:
    """Score predictions; ``seed`` is the bootstrap's. Raises ValueError if there is no window."""
    if not len(predictions):
        raise ValueError(f"{predictions.task}: no window of split {predictions.split!r} to score")
    labels, predicted, num_classes = predictions.label_index, predictions.predicted, len(predictions.labels)
    confusion = metrics.confusion_matrix(labels, predicted, num_classes)
    precision_recall = None
    if num_classes == 2 and predictions.positive_class is not None:
        precision_recall = metrics.auc_pr(*predictions.rankings[0])
    return TaskResult(
        split=predictions.split,
        num_windows=len(predictions),
        num_recordings=len(np.unique(predictions.recording.astype(str))),
        num_subjects=len(np.unique(predictions.subject.astype(str))),
        balanced_accuracy=float(metrics.balanced_accuracy(confusion)),
        balanced_accuracy_ci95=bootstrap_by_subject(predictions.subject, labels, predicted, num_classes, seed=seed),
        auroc=metrics.mean_auroc(predictions.rankings),
        auc_pr=precision_recall,
        cohen_kappa=float(metrics.cohen_kappa(confusion)),
        weighted_f1=float(metrics.weighted_f1(confusion)),
        invalid_answer_rate=float(np.mean(~predictions.greedy_valid)),
    )
