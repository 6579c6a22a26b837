"""Stage 3: multi-task instruction tuning; loss on the answers only (paper, section 2.4, Eq. 8).

A sequence is a window's EEG tokens, then [SEP] and the question, then its answer. Text positions start one after the
window's own last second, so a window reads the same whatever shares its batch; a model whose ``text_start`` is "batch"
starts them as released.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor, nn

from neurolm.config import config
from neurolm.models.masks import eeg_text_mask, eeg_text_positions
from neurolm.models.neurolm import NeuroLM
from neurolm.sequences import AnswerTexts, Batch, WindowGroup, eeg_features, no_windows
from neurolm.text.instructions import EncodedTask
from neurolm.training.shares import share, text_loss_sum, zeros_by_stratum, zeros_like_loss
from neurolm.training.stage import Stage


@config
class InstructLossConfig:
    """Weights of the losses of stage 3."""

    text_weight: float = Field(default=1.0, ge=0)
    """Weight of the language loss beside the answers' loss; it counts only where the batch has text."""
    pooled_weight: float = Field(default=0.0, ge=0)
    """Weight of a second loss: which of the task's answers, by their first tokens, fits the mean of the EEG's states.

    0, as released. It tells a small language model what to look for before its answers know where to look. These
    states see no question, so tasks that are learnt together need answers that begin differently.
    """
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Part of each target that is spread over all it is chosen from: the vocabulary, or the task's answers."""
    mixup: float = Field(default=0.0, ge=0)
    """How much the EEG of windows is mixed in training: alpha of mixup (Zhang et al., 2018); 0, as released, does not.

    A window's features are mixed with those of another that is asked the same, and it keeps its own answer: its share
    is from Beta(alpha + 1, alpha), which in expectation is mixing answers too, with shares from Beta(alpha, alpha). It
    keeps few subjects from being learnt by heart. Like dropout it is drawn anew on another number of workers.
    """
    task_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """What a task's part of the answers' losses is multiplied by: ``{hmc: 0.5}``; 1 for tasks that are not named."""


class AnswerStates(NamedTuple):
    """Hidden states of a group of windows, and the ids that they should predict."""

    before_targets: Float[Tensor, "targets width"]
    """States one token before each token that carries loss."""
    targets: Int64[Tensor, " targets"]
    """These tokens."""
    pooled: Float[Tensor, "windows width"]
    """Mean over the window's EEG tokens, none of which sees the question."""
    first_ids: Int64[Tensor, "windows classes"]
    """First token of the answer of every class."""


class InstructStage(Stage):
    """Answer each window's question."""

    def __init__(self, model: NeuroLM, tasks: Mapping[str, EncodedTask], losses: InstructLossConfig) -> None:
        super().__init__()
        self.model = model
        self.losses = losses
        self._texts = {name: AnswerTexts.of_classes(task) for name, task in tasks.items()}
        self.no_windows = no_windows(next(iter(tasks), None))

    def exact_parts(self) -> Sequence[nn.Module]:
        """The frozen tokenizer."""
        return (self.model.tokenizer,)

    def loss_shares(self, batch: Batch, totals: dict[str, float]) -> dict[str, Tensor]:
        """Shares of ``loss``, ``answer_loss``, ``answer_accuracy`` (of tokens) and, if used, of the others."""
        sums = {"answer_loss": zeros_like_loss(self), "answer_accuracy": zeros_like_loss(self)}
        weighted_sum, pooled_sum, by_task = zeros_like_loss(self), zeros_like_loss(self), zeros_by_stratum(self, batch)
        smoothing = self.losses.label_smoothing
        text_start = batch.text_start(self.model.config.text_start)
        for group in batch.groups:
            states = self.answer_states(group, text_start)
            loss = self.model.cross_entropy(states.before_targets, states.targets, smoothing)
            weight = self.losses.task_weights.get(group.task or "", 1.0)
            sums["answer_loss"] = sums["answer_loss"] + loss.total
            weighted_sum = weighted_sum + weight * loss.total
            sums["answer_accuracy"] = sums["answer_accuracy"] + loss.num_correct
            if group.stratum is not None:  # all windows of a group are asked one task
                by_task = by_task.index_add(0, group.stratum[:1], loss.total.detach()[None])
            if self.losses.pooled_weight:
                assert group.label is not None
                choices = self.model.logits(states.pooled).float().gather(1, states.first_ids)
                pooled = F.cross_entropy(choices, group.label, reduction="sum", label_smoothing=smoothing)
                pooled_sum = pooled_sum + weight * pooled
        shares = {name: share(value, totals, "answer_targets") for name, value in sums.items()}
        total = share(weighted_sum, totals, "answer_targets")
        if self.losses.pooled_weight:
            shares["pooled_loss"] = share(pooled_sum, totals, "windows")
            total = total + self.losses.pooled_weight * shares["pooled_loss"]
        if totals["text_tokens"] and batch.text is not None:
            shares["text_loss"] = share(text_loss_sum(self.model, batch.text), totals, "text_tokens")
            total = total + self.losses.text_weight * shares["text_loss"]
        reported = {name: value.detach() for name, value in shares.items()} | {"answer_loss/answer_targets": by_task}
        return {"loss": total, **reported}

    def answer_states(self, group: WindowGroup, text_start: int | None = None) -> AnswerStates:
        """What the group's windows and questions become, and what they should predict."""
        assert group.task is not None and group.label is not None, "windows of stage 3 are collated with their tasks"
        texts = self._texts[group.task].rows(group.label) if group.texts is None else group.texts
        is_target = texts.is_target[:, 1:]  # predicted one token before
        read, next_ids = texts.ids[:, :-1], texts.ids[:, 1:]
        features = eeg_features(self.model, group)
        if self.training and self.losses.mixup:
            features = mixed(features, group.channel_index, self.losses.mixup)
        eeg = self.model.embed_eeg(features, group.channel_index)
        embeddings = torch.cat([eeg, self.model.embed_text(read)], dim=1)
        num_text = read.shape[1]
        positions = eeg_text_positions(group.time_index, num_text, text_start).expand(len(group.label), -1)
        hidden = self.model.hidden(embeddings, positions, eeg_text_mask(group.time_index, num_text))
        # How many there are was counted when the batch was made, so the device need not be asked.
        places = torch.nonzero_static(is_target.flatten(), size=group.num_answer_targets)[:, 0]
        return AnswerStates(
            before_targets=hidden[:, -num_text:].flatten(0, 1)[places],
            targets=next_ids.flatten()[places],
            pooled=hidden[:, :-num_text].mean(1),
            first_ids=texts.first_ids,
        )


def mixed(
    features: Float[Tensor, "windows tokens hidden"], channel_index: Int64[Tensor, "windows tokens"], alpha: float
) -> Float[Tensor, "windows tokens hidden"]:
    """Each window's features, and a part of those of the window before it where that has the same channels."""
    share = torch.distributions.Beta(alpha + 1, alpha, validate_args=False).sample((len(features),)).to(features)
    is_alike = (channel_index == channel_index.roll(1, 0)).all(1)
    return torch.lerp(features.roll(1, 0), features, torch.where(is_alike, share, 1.0)[:, None, None])
