"""A NeuroLM that has learnt nothing before: what stages 1 and 2 are worth.

The model of a stage 2 folder with all weights drawn anew; the random encoder stays frozen as a trained one would, and
stage 3 tunes the rest on one task. Answers are scored as those of any NeuroLM.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from neurolm.baselines.fitted import Answers, predictions_of
from neurolm.baselines.learning import learn
from neurolm.baselines.settings import BaselineTraining
from neurolm.config import build, override
from neurolm.eeg.reading import WindowSource
from neurolm.eeg.shards import WindowIndex
from neurolm.evaluation.predicting import predict_windows
from neurolm.models.neurolm import NeuroLM, NeuroLMConfig
from neurolm.sequences import Batch, eeg_features
from neurolm.text.asked import classes_of_windows
from neurolm.text.code import TextCode
from neurolm.text.instructions import Task, encode_task
from neurolm.tracking import Tracker
from neurolm.training.checkpoint import load_model
from neurolm.training.context import LocalContext, RunContext
from neurolm.training.instruct import InstructLossConfig, InstructStage
from neurolm.training.model_export import TEXT_CODE
from neurolm.training.tasks import refuse_unanswerable


class UntrainedStage(InstructStage):
    """Stage 3 of a model that skipped stage 2, where features would have been measured."""

    def before_training(self, batches: Sequence[Batch], context: RunContext) -> None:
        """Measure by what features are standardised, where the model wants that."""
        if self.model.standardisation is not None:
            features = [eeg_features(self.model, group.to(context.device)) for one in batches for group in one.groups]
            self.model.standardisation.start(features, context.all_reduce_sum)


class RandomNeuroLM:
    """A NeuroLM from random weights, tuned on a task.

    Args:
        folder: model folder of stage 2; only its config and text code are used.
        task: that is learnt.
        source: a store.
        train: training windows; their shapes may differ.
        val: windows that choose the moment that is kept.
        settings: how to train.
        losses: of stage 3.
        seed: of weights, order and dropout.
        batch_size: windows in a pass without gradients.
        device: where to train.
        tracker: gets losses and validation scores.

    Raises:
        UserError: no model there, a task that cannot be asked or answered, or divergence.
    """

    def __init__(
        self,
        folder: Path,
        task: Task,
        source: WindowSource,
        train: WindowIndex,
        val: WindowIndex,
        settings: BaselineTraining,
        *,
        losses: InstructLossConfig,
        seed: int,
        batch_size: int,
        device: str,
        tracker: Tracker,
    ) -> None:
        self._batch_size, self._device = batch_size, torch.device(device)
        self.model = untrained_neurolm(folder, seed).to(self._device)
        self._task = encode_task(task, self.model.text_code)
        for index in (train, val):
            classes_of_windows(index, task)
            refuse_unanswerable(index, {task.name: self._task}, self.model.context)
        stage = UntrainedStage(self.model, {task.name: self._task}, losses)
        self.num_parameters: int | None = sum(one.numel() for one in stage.parameters() if one.requires_grad)
        self.validation_score: float | None = None
        self.validation_score = learn(
            stage,
            self._task,
            source,
            train,
            lambda: predictions_of(self, task, source, val, split="val"),
            settings,
            seed=seed,
            context=LocalContext(device),
            tracker=tracker,
        )

    def answers(self, source: WindowSource, index: WindowIndex) -> Answers:
        """Log-likelihoods of the allowed answers, and whether the model would have written one of them."""
        likelihoods, is_valid = [], []
        for start in range(0, len(index), self._batch_size):
            windows = source.read(index.rows[start : start + self._batch_size])
            found, valid = predict_windows(self.model, windows, self._task, self._device)
            likelihoods.append(found)
            is_valid.append(valid)
        return Answers(np.concatenate(likelihoods), np.concatenate(is_valid))


def untrained_neurolm(folder: Path, seed: int) -> NeuroLM:
    """The model of a folder with weights drawn by ``seed``. Raises ModelFolderError."""
    saved = load_model(folder, "neurolm")
    config = build(NeuroLMConfig, saved.values["model"], source=str(folder / "config.yaml"))
    config = override(config, {"language_model.name_or_path": None, "language_model.gguf_file": None})
    code = TextCode.from_json(saved.files[TEXT_CODE]) if TEXT_CODE in saved.files else None
    torch.manual_seed(seed)
    return NeuroLM(config, code)
