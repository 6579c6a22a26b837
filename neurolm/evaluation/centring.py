"""Answers relative to the person: log-odds less their mean over all of a subject's windows.

People differ in how strongly they seem to be at work or at rest, whatever they do, and that offset is often most of
what a model gets wrong about somebody new. Whoever has unlabelled recordings of a person in both states can take it
off. No label is read, but two things are assumed that a window alone does not need: all windows of the person are there
at once, and the classes are about equally many. So this is reported beside the plain scores and never in their place.
"""

from dataclasses import replace

import numpy as np

from neurolm.evaluation.bootstrap import owners
from neurolm.evaluation.predictions import Predictions


def centred_by_subject(predictions: Predictions) -> Predictions | None:
    """The same answers with every subject's mean log-odds at 0.

    None where that would mean nothing: for more than two classes, or where a subject's windows are all of one class.
    """
    names, owner = owners(predictions.subject)
    counts = np.zeros((len(names), len(predictions.labels)))
    np.add.at(counts, (owner, predictions.label_index), 1)
    if len(predictions.labels) != 2 or not counts.all():
        return None
    odds = predictions.log_probabilities[:, 1] - predictions.log_probabilities[:, 0]
    means = np.bincount(owner, weights=odds) / np.bincount(owner)
    half = (odds - means[owner]) / 2
    return replace(predictions, log_likelihoods=np.stack([-half, half], axis=1))
