"""Fit a baseline on any windows of a store and let it answer any others: splits of the store, or folds of subjects."""

from neurolm.baselines.band_power import log_band_power
from neurolm.baselines.classifier import NetworkBaseline
from neurolm.baselines.feature_regression import FeatureRegression
from neurolm.baselines.fitted import Fitted, predictions_of
from neurolm.baselines.linear_probe import LinearProbe
from neurolm.baselines.log_covariance import mean_log_covariance
from neurolm.baselines.majority import Majority
from neurolm.baselines.random_neurolm import RandomNeuroLM
from neurolm.baselines.settings import BaselineName, BaselineRun
from neurolm.config import UserError
from neurolm.eeg.reading import WindowSource
from neurolm.eeg.shards import WindowIndex
from neurolm.evaluation.predictions import Predictions
from neurolm.text.instructions import Task
from neurolm.tracking import NullTracker, Tracker
from neurolm.training.assembly import load_tokenizer


def fit_baseline(
    run: BaselineRun,
    name: BaselineName,
    task: Task,
    source: WindowSource,
    train: WindowIndex,
    val: WindowIndex,
    *,
    seed: int | None = None,
    tracker: Tracker | None = None,
) -> Fitted:
    """Fit one system to one task.

    Args:
        run: settings.
        name: of the system.
        task: the task; windows of other data sets are no part of the indices.
        source: a store; rows of the test split need one that was opened for it.
        train: windows to learn from, of any splits: ``index.take`` selects.
        val: windows that choose the moment in training; systems that are not trained do not look at them.
        seed: of everything that is drawn; None: the run's.
        tracker: gets losses and validation scores of what is trained.

    Raises:
        UserError: no windows, or windows and settings that the system cannot learn from; the message says why.
    """
    seed = run.seed if seed is None else seed
    for what, index in (("training", train), ("validation", val)):
        if not len(index):
            raise UserError(f"task {task.name}: no {what} windows of {task.data_set}; change data.split")
    batch_size = run.prediction_batch_size
    if name == "majority":
        return Majority(task, train)
    if name in ("band_power", "shuffled", "log_covariance"):
        features = mean_log_covariance if name == "log_covariance" else log_band_power
        shuffled = name == "shuffled"
        return FeatureRegression(features, task, source, train, seed=seed, batch_size=batch_size, shuffled=shuffled)
    if name == "linear_probe":
        tokenizer = load_tokenizer(run.tokenizer_folder)
        return LinearProbe(tokenizer, task, source, train, seed=seed, batch_size=batch_size)
    settings, tracker = run.training_for(name), tracker or NullTracker()
    if name == "random_neurolm":
        return RandomNeuroLM(
            run.pretrained_folder,
            task,
            source,
            train,
            val,
            settings,
            losses=run.losses,
            seed=seed,
            batch_size=batch_size,
            device=run.device,
            tracker=tracker,
        )
    return NetworkBaseline(
        name,
        task,
        source,
        train,
        val,
        settings,
        seed=seed,
        batch_size=batch_size,
        device=run.device,
        tracker=tracker,
    )


def predict_baseline(
    run: BaselineRun,
    name: BaselineName,
    task: Task,
    source: WindowSource,
    train: WindowIndex,
    val: WindowIndex,
    query: WindowIndex,
    *,
    split: str = "test",
    seed: int | None = None,
    tracker: Tracker | None = None,
) -> Predictions:
    """Fit one system and let it answer ``query``; arguments and errors are those of `fit_baseline`.

    ``query`` may be windows of any splits; the predictions say that they are of ``split``.
    """
    fitted = fit_baseline(run, name, task, source, train, val, seed=seed, tracker=tracker)
    return predictions_of(fitted, task, source, query, split)
