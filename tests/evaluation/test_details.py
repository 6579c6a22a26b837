"""What stands behind a score, by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest

from neurolm.evaluation.bootstrap import subject_draws
from neurolm.evaluation.details import by_recording, details, subject_spread
from neurolm.evaluation.predictions import Predictions, score


def binary(odds: list[float], labels: list[int], subjects: str, recordings: str, **changes: object) -> Predictions:
    """Windows whose log-odds of the second class are given; subjects and recordings are letters."""
    n = len(odds)
    columns = {
        "row": np.arange(n),
        "recording": np.array(list(recordings), dtype=object),
        "subject": np.array(list(subjects), dtype=object),
        "start_s": np.arange(n) * 2.0,
        "label_index": np.array(labels),
        "log_likelihoods": np.stack([np.zeros(n), np.array(odds)], axis=1) - 3.0,
        "greedy_valid": np.ones(n, dtype=bool),
    }
    return Predictions(
        task="workload", labels=("rest", "arithmetic"), positive_class=1, split="test", **columns | changes
    )


def six_subjects() -> Predictions:
    """Two windows of each class for every subject; subjects e and f have one of each wrong."""
    return binary(
        [-1, -2, 1, 2] * 4 + [1, -1, 2, -2] * 2, [0, 0, 1, 1] * 6, "".join(s * 4 for s in "abcdef"),
        "".join(r * 2 for r in "ABCDEFGHIJKL"),
    )  # fmt: skip


def test_fields_of_a_binary_task() -> None:
    found = details(six_subjects()).as_dict()
    assert found["labels"] == ["rest", "arithmetic"]
    assert found["confusion_matrix"] == [[10, 2], [2, 10]]
    assert found["recall"] == {"rest": pytest.approx(10 / 12), "arithmetic": pytest.approx(10 / 12)}
    assert found["subjects"] == {
        "median": 1.0, "quartiles": [pytest.approx(0.625), 1.0], "num_lacking_a_class": 0,
        "worst": {"subject": "e", "balanced_accuracy": 0.5, "num_windows": 4},
    }  # fmt: skip
    assert found["released_protocol"] is None
    assert found["undefined_auroc_draws"] == 0
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_intervals_are_those_of_the_same_draws() -> None:
    predictions = six_subjects()
    found = details(predictions, seed=5).as_dict()
    # kappa = 2 x accuracy - 1 and every subject is alike but e and f, whose accuracy is half of the others'.
    wrong_subjects = subject_draws(6, seed=5)[:, 4:].sum(axis=1)
    kappas = 2 * (1 - wrong_subjects / 6 / 2) - 1
    assert found["cohen_kappa_ci95"] == pytest.approx(np.percentile(kappas, [2.5, 97.5]).tolist())
    accuracy = score(predictions, seed=5).balanced_accuracy_ci95
    assert found["cohen_kappa_ci95"] == pytest.approx([2 * end - 1 for end in accuracy])
    low, high = found["auroc_ci95"]
    assert low < score(predictions).auroc < high == 1.0


def test_too_few_subjects_have_no_intervals() -> None:
    found = details(binary([1, -1], [1, 0], "ab", "AB")).as_dict()
    assert [found[name] for name in ("auroc_ci95", "cohen_kappa_ci95", "weighted_f1_ci95")] == [None] * 3


def test_draws_without_a_class_are_left_out_and_counted() -> None:
    predictions = binary([-2, -1, -0.5, 1, 2, 0.5], [0, 0, 0, 1, 1, 1], "abcdef", "ABCDEF")
    found = details(predictions).as_dict()
    positives = subject_draws(6)[:, 3:].sum(axis=1)
    assert found["undefined_auroc_draws"] == ((positives == 0) | (positives == 6)).sum() > 0
    assert found["auroc_ci95"] == [1.0, 1.0]
    assert found["subjects"]["num_lacking_a_class"] == 6


def test_a_recording_has_one_answer_of_mean_log_probabilities() -> None:
    # Recording A: one window very sure of rest, two hardly of arithmetic; a vote would say arithmetic.
    predictions = binary([-5, 0.1, 0.1, 3, -1], [0, 0, 0, 1, 1], "aaabb", "AAABB")
    whole = by_recording(predictions)
    assert whole is not None and whole.recording.tolist() == ["A", "B"]
    expected = predictions.log_probabilities[:3].mean(axis=0)
    assert whole.log_likelihoods[0] == pytest.approx(expected)
    assert whole.predicted.tolist() == [0, 1]
    found = details(predictions).as_dict()["recordings"]
    assert found == {
        "num_recordings": 2, "balanced_accuracy": 1.0, "balanced_accuracy_ci95": None, "auroc": 1.0,
        "auroc_ci95": None, "confusion_matrix": [[1, 0], [0, 1]],
    }  # fmt: skip


def test_recordings_with_several_classes_are_not_answered_as_one() -> None:
    predictions = binary([-1, 1], [0, 1], "aa", "AA")
    assert by_recording(predictions) is None
    assert details(predictions).as_dict()["recordings"] is None


def test_recordings_get_their_intervals_by_subject() -> None:
    found = details(six_subjects()).as_dict()["recordings"]
    assert found["num_recordings"] == 12
    assert found["balanced_accuracy_ci95"] is not None and found["auroc_ci95"] is not None


def test_the_worst_of_equals_is_the_first_by_id() -> None:
    predictions = binary([1, 1, -1], [0, 0, 1], "cba", "CBA")
    assert subject_spread(predictions).worst.subject == "a"


def test_released_answers_are_scored_under_their_own_name() -> None:
    answers = np.array([0, -1, 1, 1] * 6)
    predictions = replace(six_subjects(), released_answer=answers, released_text=np.array([" No"] * 24, object))
    found = details(predictions).as_dict()["released_protocol"]
    assert found["balanced_accuracy"] == 1.0 and found["unreadable_answer_rate"] == 0.25
    assert found["roc_auc"] == 1.0 and set(found) == {
        "accuracy", "balanced_accuracy", "roc_auc", "pr_auc", "unreadable_answer_rate",
    }  # fmt: skip
