"""Stage 1: the text-aligned neural tokenizer (paper, section 2.2, Eq. 1 to 4)."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from neurolm.config import UserError, config
from neurolm.models.alignment import (
    EEG_DOMAIN,
    TEXT_DOMAIN,
    DomainClassifier,
    gradient_reversal,
    reversal_strength,
)
from neurolm.models.neural_tokenizer import NeuralTokenizer
from neurolm.sequences import Batch, WindowGroup
from neurolm.training.context import RunContext
from neurolm.training.shares import add_by_stratum, share, zeros_by_stratum, zeros_like_loss
from neurolm.training.stage import Stage

START_SAMPLES_PER_CODE = 8
"""Tokens that the k-means start reads for each code, as in the first batch of a worker of the released code."""

START_SEED = 0
"""Seed of the rows that k-means starts from; the rows themselves already follow from the run's seed."""


@config
class TokenizerLossConfig:
    """Weights of the losses of stage 1; the commitment loss has its weight in the model's config."""

    raw_weight: float = Field(default=1.0, ge=0)
    """Weight of the reconstructed signal."""
    frequency_weight: float = Field(default=1.0, ge=0)
    """Weight of the reconstructed Fourier amplitudes."""
    covariance_weight: float = Field(default=1.0, ge=0)
    """Weight of the reconstructed log-covariance."""
    domain_weight: float = Field(default=1.0, ge=0)
    """Weight of the classifier that tells EEG from text; it counts only where the batch has text."""

    def weight_of(self, target: str) -> float:
        """Weight of a reconstructed target."""
        return float(getattr(self, f"{target}_weight"))


class TokenizerStage(Stage):
    """Quantize, reconstruct, and make EEG tokens look like text to a classifier that learns to tell them apart."""

    text_table: Float[Tensor, "rows hidden"] | None

    def __init__(
        self,
        tokenizer: NeuralTokenizer,
        text_table: Float[Tensor, "rows hidden"] | None,
        losses: TokenizerLossConfig,
    ) -> None:
        """``text_table`` has the frozen embedding of each text id; None trains without alignment.

        Raises:
            UserError: the table is not as wide as the tokenizer.
        """
        super().__init__()
        self.tokenizer = tokenizer
        self.losses = losses
        self.alpha = 0.0
        hidden_size = tokenizer.config.hidden_size
        if text_table is not None and text_table.shape[1] != hidden_size:
            raise UserError(
                f"text_table: rows have {text_table.shape[1]} values, the tokenizer's hidden_size is {hidden_size}; "
                "take a table of that width"
            )
        # The table is rebuilt from its source, so that checkpoints need not carry it.
        self.register_buffer("text_table", text_table, persistent=False)
        self.classifier = DomainClassifier(hidden_size) if text_table is not None else None

    def without_text(self) -> None:
        """Freeze the classifier."""
        if self.classifier is not None:
            self.classifier.requires_grad_(False)

    def before_step(self, step: int, total_steps: int) -> None:
        """Strengthen the reversed gradient as training goes on."""
        self.alpha = reversal_strength(step, total_steps)

    def loss_shares(self, batch: Batch, totals: dict[str, float]) -> dict[str, Tensor]:
        """Shares of ``loss``, ``commitment``, ``raw``, ``frequency``; with text, ``domain_eeg`` and ``domain_text``."""
        settings = self.tokenizer.config
        shares = {name: zeros_like_loss(self) for name in ("commitment", *settings.targets)}
        is_aligned = self.classifier is not None and totals["text_tokens"] > 0
        eeg_sum = zeros_like_loss(self)
        by_stratum = {name: zeros_by_stratum(self, batch) for name in settings.targets}
        # With virtual padding a window counts as many tokens as it is padded to, whatever its own number.
        counted = "eeg_tokens" if settings.compat_pad_to is None else "windows"
        for group in batch.groups:
            output = self.tokenizer(group.signal, group.channel_index, group.time_indices, group.num_channels)
            num_local = group.channel_index.numel() if counted == "eeg_tokens" else len(group)
            for name, error in output.squared_errors.items():
                shares[name] = shares[name] + share(error, totals, counted, output.counts[name] / max(num_local, 1))
            for name, error in output.by_window.items():
                per_element = num_local / max(output.counts[name], 1)
                by_stratum[name] = add_by_stratum(by_stratum[name], group, error * per_element)
            if is_aligned:
                eeg_sum = eeg_sum + self._domain_loss(gradient_reversal(output.features, self.alpha), EEG_DOMAIN)
        loss = settings.commitment_weight * shares["commitment"]
        for name in settings.targets:
            loss = loss + self.losses.weight_of(name) * shares[name]
        if is_aligned:
            shares["domain_eeg"] = share(eeg_sum, totals, "eeg_tokens")
            shares["domain_text"] = share(self._text_sum(batch), totals, "text_tokens")
            loss = loss + self.losses.domain_weight * (shares["domain_eeg"] + shares["domain_text"])
        reported = {name: value.detach() for name, value in shares.items()}
        reported |= {f"{name}/{counted}": sums for name, sums in by_stratum.items()}
        return {"loss": loss, **reported}

    @torch.no_grad()
    def before_training(self, batches: Sequence[Batch], context: RunContext) -> None:
        """Start the codebook by k-means over the latents of the first global batch.

        Each window is encoded alone and the latents are put in the order of the global batch, so that any number of
        workers starts from the same codebook.
        """
        if self.tokenizer.quantizer.initialised:
            return
        groups = [group for batch in batches for group in batch.groups]
        sizes: dict[int, int] = {}
        for part in context.all_gather_object(_window_sizes(groups)):
            sizes |= part
        chosen = start_positions(sizes, START_SAMPLES_PER_CODE * self.tokenizer.config.codebook_size)
        alone = [
            group.window(row)
            for group in groups
            for row, position in enumerate(group.position.tolist())
            if position in chosen
        ]
        mine: dict[int, Tensor] = {}
        for one in self.with_passes(Batch(tuple(alone))).to(context.device).groups:
            features = self.tokenizer.encode(one.signal, one.channel_index, one.time_indices, one.num_channels)
            mine |= dict(zip(one.position.tolist(), self.tokenizer.project(features).cpu(), strict=True))
        latents: dict[int, Tensor] = {}
        for part in context.all_gather_object(mine):
            latents |= part
        samples = torch.cat([latents[position] for position in sorted(latents)])
        self.tokenizer.start_codebook(samples.to(context.device), seed=START_SEED)

    def after_step(self, context: RunContext) -> None:
        """Move the codebook by what all workers assigned to it since the last step."""
        self.tokenizer.update_codebook(context.all_reduce_sum)

    def drop_step(self) -> None:
        """Forget what was assigned to the codebook since the last step."""
        self.tokenizer.forget_assignments()

    def _domain_loss(self, features: Float[Tensor, "*tokens hidden"], domain: int) -> Float[Tensor, ""]:
        assert self.classifier is not None
        return self.classifier.loss_sum(features, domain)

    def _text_sum(self, batch: Batch) -> Float[Tensor, ""]:
        """The classifier's loss on the embeddings of the ids that the text crops read."""
        assert self.text_table is not None
        read = self.text_table.new_zeros(0, 1, dtype=torch.long) if batch.text is None else batch.text[:, :-1]
        return self._domain_loss(self.text_table[read], TEXT_DOMAIN)


def start_positions(sizes: Mapping[int, int], limit: int) -> frozenset[int]:
    """Which windows of a global batch the k-means start reads: every so many-th, for about ``limit`` tokens or all.

    ``sizes`` are the numbers of tokens by position in the global batch.
    """
    every = max(1, sum(sizes.values()) // limit)
    return frozenset(sorted(sizes)[::every])


def _window_sizes(groups: Sequence[WindowGroup]) -> dict[int, int]:
    return {position: len(group.time_index) for group in groups for position in group.position.tolist()}
