"""Answers of all folds of a cross-validation as one: every subject's, by a model that never saw the subject."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from neurolm.config import UserError
from neurolm.evaluation.predictions import Predictions, concatenate

OUT_OF_FOLD = "kfold"
"""The split that pooled answers are of where folds are over all subjects."""
INNER_FOLDS = "inner_kfold"
"""The same where the test subjects were left out: such answers may be looked at as often as one likes."""
OPENED = ("test", OUT_OF_FOLD)
"""Splits whose answers cost an opening of test windows."""


class PoolingError(UserError):
    """Folds that do not make a whole."""


def pool(folds: Sequence[Predictions], *, split: str, num_windows: int) -> Predictions:
    """The answers of all folds, in the order of folds; ``row`` counts them, as rows of the folds' stores mean nothing.

    Args:
        folds: answers to one task, of folds that test somebody on it.
        split: what the pooled answers are called, `OUT_OF_FOLD` or `INNER_FOLDS`.
        num_windows: of the task's data set, over all splits of a fold.

    Raises:
        PoolingError: a subject was tested in two folds, windows are missing, or folds differ in task or classes.
    """
    if not folds:
        raise PoolingError("no fold was evaluated, so there is nothing to pool")
    tested: dict[str, int] = {}
    for number, part in enumerate(folds):
        for subject in np.unique(part.subject.astype(str)).tolist():
            if subject in tested:
                raise PoolingError(
                    f"{part.task}: subject {subject} was tested in two folds; pooled answers need everybody once. Are "
                    "subjects fixed to the test split by the data set's declaration?"
                )
            tested[subject] = number
    if (found := sum(map(len, folds))) != num_windows:
        raise PoolingError(
            f"{folds[0].task}: the folds answered {found} windows, the data set has {num_windows}; every window has to "
            "be tested once. Were recordings added, or a fold's store changed, in between? Use another out"
        )
    starts = np.cumsum([0, *map(len, folds)])
    rows = [np.arange(start, start + len(part)) for start, part in zip(starts, folds, strict=False)]
    try:
        return concatenate([replace(part, row=row, split=split) for part, row in zip(folds, rows, strict=True)])
    except ValueError as error:
        raise PoolingError(str(error)) from None
