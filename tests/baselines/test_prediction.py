"""Fitting on any subsets and answering any others; what is kept is the best moment by validation."""

from pathlib import Path

import numpy as np
import pytest

from neurolm.baselines.classifier import NetworkBaseline, microvolts
from neurolm.baselines.learning import batch_size
from neurolm.baselines.prediction import fit_baseline, predict_baseline
from neurolm.config import UserError
from neurolm.evaluation.predictions import concatenate, score
from neurolm.tracking import JsonlTracker, read_curves
from tests.baselines.toy import TASK, indices, toy_run, toy_store
from tests.tiny import group_of, stored_window


def test_folds_of_subjects_answer_every_window_once(tmp_path: Path) -> None:
    store = toy_store(tmp_path)
    train, val = indices(store)
    run = toy_run(tmp_path)
    parts = []
    for fold in range(3):
        tested = np.isin(train.subject.astype(str), [f"s{2 * fold}", f"s{2 * fold + 1}"])
        found = predict_baseline(run, "band_power", TASK, store, train.take(~tested), val, train.take(tested))
        assert set(found.subject) == set(train.subject[tested])
        parts.append(found)
    everyone = concatenate(parts)
    assert (everyone.row == train.rows).all()
    assert score(everyone).num_subjects == 6
    assert score(everyone).balanced_accuracy == 1.0


def test_the_best_validation_is_kept_and_all_are_told(tmp_path: Path) -> None:
    store = toy_store(tmp_path)
    train, val = indices(store)
    run = toy_run(tmp_path)
    tracker = JsonlTracker(tmp_path / "run" / "tracking.jsonl")
    fitted = fit_baseline(run, "cnn_transformer", TASK, store, train, val, tracker=tracker)
    tracker.close()
    curves = read_curves(tmp_path / "run" / "tracking.jsonl")
    scores = [value for _, value in curves["validation/score"]]
    assert len(scores) == 4 and fitted.validation_score == max(scores)
    assert isinstance(fitted, NetworkBaseline) and not fitted.stage.training
    answers = fitted.answers(store, val)
    assert score_of(answers.log_likelihoods, val) == fitted.validation_score
    np.testing.assert_allclose(np.exp(answers.log_likelihoods).sum(axis=1), 1)


def score_of(log_likelihoods: np.ndarray, index: object) -> float:
    labels = np.array([list(TASK.answers).index(label) for label in index.label])  # type: ignore[attr-defined]
    right = log_likelihoods.argmax(axis=1) == labels
    return float(np.mean([right[labels == one].mean() for one in (0, 1)]))


def test_what_cannot_be_learnt_is_told(tmp_path: Path) -> None:
    store = toy_store(tmp_path)
    train, val = indices(store)
    run = toy_run(tmp_path)
    with pytest.raises(UserError, match="no validation windows of workload"):
        fit_baseline(run, "majority", TASK, store, train, val.take(val.subject == "nobody"))
    with pytest.raises(UserError, match="two or more classes"):
        fit_baseline(run, "band_power", TASK, store, train.take(train.label == "rest"), val)
    train.label[3] = "asleep"
    with pytest.raises(UserError, match="no answer for the label asleep"):
        fit_baseline(run, "ffcl", TASK, store, train, val)


@pytest.mark.parametrize(
    ("num_windows", "wanted", "size"), [(64, 32, 32), (65, 32, 33), (3, 2, 3), (2, 2, 2), (5, 2, 3)]
)
def test_no_batch_is_of_one_window(num_windows: int, wanted: int, size: int) -> None:
    assert batch_size(num_windows, wanted) == size
    assert num_windows % size != 1
    with pytest.raises(UserError, match="1 training windows"):
        batch_size(1, wanted)


def test_patches_become_signals_again() -> None:
    windows = [stored_window(3, 600, seed=seed) for seed in range(2)]
    found = microvolts(group_of(windows)).numpy()
    np.testing.assert_allclose(found, np.stack([window.signal for window in windows]), rtol=1e-6)
