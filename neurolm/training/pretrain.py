"""Stage 2: multi-channel autoregression, with a causal language loss beside it (paper, section 2.3, Eq. 5 and 7)."""

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor, nn

from neurolm.config import config
from neurolm.models.losses import next_second_codes
from neurolm.models.masks import stair_step_mask
from neurolm.models.neurolm import NeuroLM
from neurolm.sequences import Batch, eeg_features, eeg_tokens
from neurolm.training.context import RunContext
from neurolm.training.shares import add_by_stratum, share, text_loss_sum, zeros_by_stratum, zeros_like_loss
from neurolm.training.stage import Stage


@config
class PretrainLossConfig:
    """Weights of the losses of stage 2."""

    text_weight: float = Field(default=1.0, ge=0)
    """Weight of the language loss beside the EEG loss; it counts only where the batch has text."""


class PretrainStage(Stage):
    """Predict each channel's code of the next second; the tokenizer inside the model is frozen."""

    def __init__(self, model: NeuroLM, losses: PretrainLossConfig) -> None:
        super().__init__()
        self.model = model
        self.losses = losses

    def without_text(self) -> None:
        """Freeze the text table."""
        self.model.language_model.freeze_text_table()

    def exact_parts(self) -> Sequence[nn.Module]:
        """The frozen tokenizer."""
        return (self.model.tokenizer,)

    def before_training(self, batches: Sequence[Batch], context: RunContext) -> None:
        """Measure by what features are standardised, where the model wants that."""
        if self.model.standardisation is not None:
            groups = [group.to(context.device) for batch in batches for group in self.with_passes(batch).groups]
            features = [eeg_features(self.model, group) for group in groups]
            self.model.standardisation.start(features, context.all_reduce_sum)

    def loss_shares(self, batch: Batch, totals: dict[str, float]) -> dict[str, Tensor]:
        """Shares of ``loss``, ``eeg_loss``, ``eeg_accuracy`` and, in a run with text, ``text_loss``."""
        eeg_sum, num_correct = zeros_like_loss(self), zeros_like_loss(self)
        by_stratum = zeros_by_stratum(self, batch)
        for group in batch.groups:
            tokens = eeg_tokens(self.model, group)
            embeddings = self.model.embed_eeg(tokens.features.float(), group.channel_index)
            hidden = self.model.hidden(embeddings, group.time_indices, stair_step_mask(group.time_index))
            targets = self.model.first_code_class + next_second_codes(tokens.codes, group.num_channels)
            loss = self.model.cross_entropy(hidden[:, : targets.shape[1]], targets)
            eeg_sum = eeg_sum + loss.total
            num_correct = num_correct + loss.num_correct
            by_stratum = add_by_stratum(by_stratum, group, loss.each)
        shares = {
            "eeg_loss": share(eeg_sum, totals, "eeg_targets"),
            "eeg_accuracy": share(num_correct, totals, "eeg_targets"),
        }
        total = shares["eeg_loss"]
        if totals["text_tokens"] and batch.text is not None:
            shares["text_loss"] = share(text_loss_sum(self.model, batch.text), totals, "text_tokens")
            total = total + self.losses.text_weight * shares["text_loss"]
        reported = {name: value.detach() for name, value in shares.items()} | {"eeg_loss/eeg_targets": by_stratum}
        return {"loss": total, **reported}
