"""Stage 3: multi-task instruction tuning; loss on the answers only (paper, section 2.4, Eq. 8).

A sequence is a window's EEG tokens, then [SEP] and the question, then its answer. Text positions start one after the
window's own last second, so a window reads the same whatever shares its batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor

from neurolm.config import config
from neurolm.models.masks import eeg_text_mask, eeg_text_positions
from neurolm.models.neurolm import NeuroLM
from neurolm.sequences import Batch, WindowGroup
from neurolm.text.instructions import EncodedTask
from neurolm.training.shares import reach_all_parameters, share, text_loss_sum, zeros_like_loss
from neurolm.training.stage import Stage


@config
class InstructLossConfig:
    """Weights of the losses of stage 3."""

    text_weight: float = Field(default=1.0, ge=0)
    """Weight of the language loss beside the answers' loss; it counts only where the batch has text."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Part of each answer token's target that is spread over all classes."""


@dataclass(frozen=True)
class ClassTexts:
    """The texts of a task's classes in one table; shorter ones go on with ends of text, without loss."""

    ids: Int64[Tensor, "classes length"]
    is_target: Bool[Tensor, "classes length"]

    @classmethod
    def of(cls, task: EncodedTask) -> "ClassTexts":
        """The table of a task."""
        texts = [task.training_text(one) for one in range(len(task.labels))]
        shape = len(texts), max(len(text.ids) for text in texts)
        ids, is_target = torch.full(shape, task.code.end_of_text), torch.zeros(shape, dtype=torch.bool)
        for row, text in enumerate(texts):
            ids[row, : len(text.ids)] = torch.tensor(text.ids)
            is_target[row, : len(text.ids)] = torch.tensor(text.is_target)
        return cls(ids, is_target)


class InstructStage(Stage):
    """Answer each window's question."""

    def __init__(self, model: NeuroLM, tasks: Mapping[str, EncodedTask], losses: InstructLossConfig) -> None:
        super().__init__()
        self.model = model
        self.losses = losses
        self._texts = {name: ClassTexts.of(task) for name, task in tasks.items()}

    def forward(self, batch: Batch, totals: dict[str, float]) -> dict[str, Tensor]:
        """Shares of ``loss``, ``answer_loss``, ``answer_accuracy`` (of tokens) and, with text, ``text_loss``."""
        answer_sum, num_correct = zeros_like_loss(self), zeros_like_loss(self)
        for group in batch.groups:
            loss = self.model.cross_entropy(*self.answer_states(group), self.losses.label_smoothing)
            answer_sum = answer_sum + loss.total
            num_correct = num_correct + loss.num_correct
        shares = {
            "answer_loss": share(answer_sum, totals, "answer_targets"),
            "answer_accuracy": share(num_correct, totals, "answer_targets"),
        }
        total = shares["answer_loss"]
        if totals["text_tokens"] and batch.text is not None:
            shares["text_loss"] = share(text_loss_sum(self.model, batch.text), totals, "text_tokens")
            total = total + self.losses.text_weight * shares["text_loss"]
        reported = {name: value.detach() for name, value in shares.items()}
        return {"loss": reach_all_parameters(total, self, batch), **reported}

    def answer_states(self, group: WindowGroup) -> tuple[Float[Tensor, "targets width"], Int64[Tensor, " targets"]]:
        """Hidden states that predict the tokens of the group that carry loss, and the ids of these."""
        assert group.task is not None and group.label is not None, "windows of stage 3 are collated with their tasks"
        texts = self._texts[group.task]
        label = group.label
        ids = texts.ids.to(label.device)[label]
        is_target = texts.is_target.to(label.device)[label][:, 1:]  # predicted one token before
        read, next_ids = ids[:, :-1], ids[:, 1:]
        features, _ = self.model.encode(group.signal, group.channel_index, group.time_indices)
        embeddings = torch.cat([self.model.embed_eeg(features, group.channel_index), self.model.embed_text(read)], 1)
        num_text = read.shape[1]
        positions = eeg_text_positions(group.time_index, num_text).expand(len(label), -1)
        hidden = self.model.hidden(embeddings, positions, eeg_text_mask(group.time_index, num_text))
        return hidden[:, -num_text:][is_target], next_ids[is_target]
