"""Logistic regression on features, its strength chosen on training subjects alone; what probe and band power share."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from neurolm.baselines.fitted import Answers, spread
from neurolm.config import UserError
from neurolm.evaluation import metrics

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
"""Inverse regularisations that are compared by cross-validation over training subjects."""
OF_ONE_SUBJECT = 1e-2
"""That of a single training subject, who leaves nothing to compare them by."""
FOLDS = 5


class LogisticModel:
    """Standardised features, and a line between classes.

    Args:
        features: ``[windows, features]`` of training windows; features that never vary are left out.
        classes: of these windows.
        subjects: of these windows; no subject is on both sides of a fold.
        seed: of the solver.

    Raises:
        UserError: all windows are of one class.
    """

    def __init__(
        self, features: NDArray[np.floating], classes: NDArray[np.int64], subjects: NDArray[Any], seed: int
    ) -> None:
        if len(np.unique(classes)) < 2:
            raise UserError("logistic regression needs training windows of two or more classes; change data.split")
        self._used = features.std(axis=0) > 0
        self._pipeline = _best(features[:, self._used], classes, subjects, seed)

    @property
    def num_parameters(self) -> int:
        """Weights and biases."""
        regression = self._pipeline[-1]
        return int(regression.coef_.size + regression.intercept_.size)

    def answers(self, features: NDArray[np.floating], num_classes: int) -> Answers:
        """Log-probabilities of the classes of a task."""
        found = self._pipeline.predict_log_proba(features[:, self._used])
        return spread(self._pipeline.classes_, found, num_classes)


def _best(features: NDArray[np.floating], classes: NDArray[np.int64], subjects: NDArray[Any], seed: int) -> Pipeline:
    """The strength that does best on held-out training subjects."""
    groups = np.unique(np.asarray(subjects, dtype=str), return_inverse=True)[1]
    folds = min(FOLDS, int(groups.max()) + 1)
    models = [
        make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500, random_state=seed))
        for strength in (STRENGTHS if folds > 1 else (OF_ONE_SUBJECT,))
    ]
    if len(models) == 1:
        return models[0].fit(features, classes)
    splits = list(GroupKFold(folds).split(features, classes, groups))
    scores = [cross_val_score(one, features, classes, cv=splits, scoring=_balanced).mean() for one in models]
    return models[int(np.argmax(scores))].fit(features, classes)


def _balanced(model: Pipeline, features: NDArray[np.floating], classes: NDArray[np.int64]) -> float:
    """Balanced accuracy on held-out subjects, who may lack a class."""
    predicted = np.asarray(model.predict(features), dtype=np.int64)
    num_classes = int(max(predicted.max(), classes.max())) + 1
    return float(metrics.balanced_accuracy(metrics.confusion_matrix(classes, predicted, num_classes)))
