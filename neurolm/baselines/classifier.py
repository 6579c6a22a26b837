"""A network that reads one window of signal and says its class, as a stage of the training loop."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from neurolm.baselines.fitted import Answers, predictions_of
from neurolm.baselines.learning import learn
from neurolm.baselines.networks import NETWORKS, Network, Shape
from neurolm.baselines.scaling import DeviationScale, MicrovoltScale, PercentileScale
from neurolm.baselines.settings import BaselineTraining
from neurolm.baselines.uniform_windows import UniformWindows
from neurolm.eeg.reading import WindowSource
from neurolm.eeg.shards import WindowIndex
from neurolm.sequences import MICROVOLT_SCALE, Batch, WindowGroup
from neurolm.text.asked import classes_of_windows
from neurolm.text.bpe import gpt2_bpe
from neurolm.text.instructions import Task, encode_task
from neurolm.tracking import Tracker
from neurolm.training.context import LocalContext
from neurolm.training.shares import share, zeros_like_loss
from neurolm.training.stage import Stage

MOST_MEASURED = 4096
"""Training windows, evenly spread, from which the deviation of channels is measured."""


class ClassifierStage(Stage):
    """Cross-entropy of the classes."""

    def __init__(self, scale: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.scale = scale
        self.network = network

    def loss_shares(self, batch: Batch, totals: dict[str, float]) -> dict[str, Tensor]:
        """Shares of ``loss`` and ``accuracy``."""
        loss, num_correct = zeros_like_loss(self), zeros_like_loss(self)
        for group in batch.groups:
            assert group.label is not None, "windows of a classifier are collated with their task"
            logits = self.logits(microvolts(group))
            loss = loss + F.cross_entropy(logits, group.label, reduction="sum")
            num_correct = num_correct + (logits.argmax(dim=1) == group.label).sum()
        return {"loss": share(loss, totals, "windows"), "accuracy": share(num_correct, totals, "windows").detach()}

    def logits(self, signal: Float[Tensor, "windows channels times"]) -> Float[Tensor, "windows classes"]:
        """Logits for signals in µV at 200 Hz."""
        found: Tensor = self.network(self.scale(signal))
        return found


class NetworkBaseline:
    """One of the networks, trained on a task.

    Args:
        name: of the network.
        task: that is learnt.
        source: a store.
        train: training windows.
        val: windows that choose the moment that is kept.
        settings: how to train.
        seed: of weights, order and dropout.
        batch_size: windows in a pass without gradients.
        device: where to train.
        tracker: gets losses and validation scores.

    Raises:
        UserError: windows of several shapes, labels without an answer, a package that is missing, or divergence.
    """

    def __init__(
        self,
        name: str,
        task: Task,
        source: WindowSource,
        train: WindowIndex,
        val: WindowIndex,
        settings: BaselineTraining,
        *,
        seed: int,
        batch_size: int,
        device: str,
        tracker: Tracker,
    ) -> None:
        self._windows = UniformWindows(source, train, task.name)
        self._batch_size, self._device = batch_size, torch.device(device)
        self._windows.refuse_others(val)
        for index in (train, val):
            classes_of_windows(index, task)
        shape = Shape(self._windows.channels, self._windows.num_times, len(task.answers))
        torch.manual_seed(seed)
        network = NETWORKS[name]
        scale = _scale(network, self._windows, train, batch_size)
        self.stage = ClassifierStage(scale, network.build(shape)).to(self._device)
        self.num_parameters: int | None = sum(one.numel() for one in self.stage.parameters() if one.requires_grad)
        self.validation_score: float | None = None
        self.validation_score = learn(
            self.stage,
            encode_task(task, gpt2_bpe()),
            self._windows,
            train,
            lambda: predictions_of(self, task, source, val, split="val"),
            settings,
            seed=seed,
            context=LocalContext(device),
            tracker=tracker,
        )

    @torch.no_grad()
    def answers(self, source: WindowSource, index: WindowIndex) -> Answers:
        """Log-probabilities of the network. Raises MixedWindowsError."""
        self._windows.refuse_others(index)
        windows = self._windows.of(source)
        parts = []
        for start in range(0, len(index), self._batch_size):
            signal = torch.from_numpy(windows.signals(index.rows[start : start + self._batch_size]))
            logits = self.stage.logits(signal.to(self._device)).double()
            parts.append(logits.log_softmax(dim=1).cpu().numpy())
        return Answers.of(np.concatenate(parts))


def microvolts(group: WindowGroup) -> Float[Tensor, "windows channels times"]:
    """The signals of a group, which has them as patches of a second, time-major, in 100 µV."""
    patches = group.signal.unflatten(1, (group.num_seconds, group.num_channels))
    return patches.transpose(1, 2).flatten(2) * MICROVOLT_SCALE


def _scale(network: Network, windows: UniformWindows, train: WindowIndex, batch_size: int) -> nn.Module:
    if network.scale == "deviation":
        return DeviationScale(_deviation(windows, train, batch_size))
    return PercentileScale() if network.scale == "percentile" else MicrovoltScale()


def _deviation(windows: UniformWindows, train: WindowIndex, batch_size: int) -> Float[Tensor, " channels"]:
    """Of every channel around its mean in a window, over training windows, in µV."""
    places = np.unique(np.linspace(0, len(train) - 1, min(len(train), MOST_MEASURED)).astype(np.int64))
    squares = np.zeros(windows.num_channels)
    for start in range(0, len(places), batch_size):
        signals = windows.signals(train.rows[places[start : start + batch_size]])
        squares += signals.var(axis=2, dtype=np.float64).sum(axis=0)
    return torch.from_numpy(np.sqrt(squares / len(places))).float()
