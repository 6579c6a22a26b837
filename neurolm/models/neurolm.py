"""NeuroLM: a frozen neural tokenizer in front of a causal language model.

- EEG enters as the tokenizer's continuous features (never as codebook rows): a projection where the widths differ,
  plus an embedding of the channel; the second goes in through the language model's position ids;
- codes are targets only: classes after the text ids in one softmax over text and EEG.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from neurolm.config import config
from neurolm.models.channel_gain import ChannelGain
from neurolm.models.language_model import LanguageModel, LanguageModelConfig
from neurolm.models.neural_tokenizer import NeuralTokenizer
from neurolm.models.neural_tokenizer_config import NeuralTokenizerConfig
from neurolm.models.place_embedding import NUM_CHANNEL_ROWS
from neurolm.models.standardisation import FixedStandardisation
from neurolm.models.vocabulary_head import HeadLoss
from neurolm.text.code import TextCode


@config
class NeuroLMConfig:
    """Both parts of the model; defaults are NeuroLM-B."""

    tokenizer: NeuralTokenizerConfig = Field(default_factory=NeuralTokenizerConfig)
    """The neural tokenizer that stage 1 trained."""
    language_model: LanguageModelConfig = Field(default_factory=LanguageModelConfig)
    """The causal language model."""
    spatial_embedding_init_std: float = Field(default=1.0, gt=0)
    """Initial deviation of the channel embedding added to EEG tokens."""
    feature_norm: Literal["none", "first_batch"] = "none"
    """Whether features are standardised, by the first batch of pre-training, before the language model reads them.

    none, as released; first_batch lets a small language model without pretrained weights learn several times faster.
    """
    channel_gain: float = Field(default=0.0, ge=0)
    """How much faster than other weights factors by channel and feature are learnt, which features are multiplied by.

    0, as released, has none.
    """
    text_start: Literal["window", "batch"] = "window"
    """Where text positions start: after the window's own last second or, as released, after the batch's longest."""


class NeuroLM(nn.Module):
    """The model of stages 2 and 3. The tokenizer is frozen: no gradient, always in eval mode."""

    def __init__(self, config: NeuroLMConfig, text_code: TextCode | None = None) -> None:
        """For ``text_code`` and errors see `LanguageModel`."""
        super().__init__()
        self.config = config
        self.tokenizer = NeuralTokenizer(config.tokenizer, with_decoders=False).requires_grad_(False).eval()
        self.language_model = LanguageModel(config.language_model, config.tokenizer.codebook_size, text_code)
        eeg_size, text_size = config.tokenizer.hidden_size, self.language_model.hidden_size
        self.standardisation = FixedStandardisation(eeg_size) if config.feature_norm == "first_batch" else None
        self.channel_gain = ChannelGain(eeg_size, config.channel_gain) if config.channel_gain else None
        self.projection: nn.Module = nn.Identity()
        if eeg_size != text_size:
            self.projection = nn.Sequential(nn.Linear(eeg_size, text_size), nn.GELU())
        self.pos_embed = nn.Embedding(NUM_CHANNEL_ROWS, text_size)
        nn.init.normal_(self.pos_embed.weight, std=config.spatial_embedding_init_std)

    @property
    def num_classes(self) -> int:
        """Text ids and EEG codes together."""
        return self.language_model.num_classes

    @property
    def text_code(self) -> TextCode:
        """How the language model writes text."""
        return self.language_model.text_code

    @property
    def first_code_class(self) -> int:
        """The class of EEG code 0; codes follow the text table's rows."""
        return self.language_model.text_vocabulary_size

    @property
    def context(self) -> int:
        """Positions that the language model has."""
        return self.language_model.context

    def train(self, mode: bool = True) -> "NeuroLM":
        """Set the training mode of everything but the tokenizer."""
        super().train(mode)
        self.tokenizer.eval()
        return self

    def standalone_config(self) -> NeuroLMConfig:
        """A config that builds this model, its adapters merged, without any other model."""
        return replace(self.config, language_model=self.language_model.standalone_config())

    def merged(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """This model's state, tensor by tensor, as that of the model of `standalone_config`."""
        return self.language_model.merged(weights, "language_model.")

    @torch.no_grad()
    def features(
        self,
        signal: Float[Tensor, "batch tokens points"],
        channel_index: Int[Tensor, "... tokens"],
        time_index: Int[Tensor, "... tokens"],
        num_channels: int | None = None,
    ) -> Float[Tensor, "batch tokens hidden"]:
        """The frozen encoder's vector of each EEG token; see `NeuralTokenizer.encode`."""
        return self.tokenizer.encode(signal, channel_index, time_index, num_channels)

    @torch.no_grad()
    def codes(self, features: Float[Tensor, "batch tokens hidden"]) -> Int[Tensor, "batch tokens"]:
        """The code of each EEG token: what pre-training predicts."""
        return self.tokenizer.codes(features)

    def embed_eeg(
        self, features: Float[Tensor, "batch tokens hidden"], channel_index: Int[Tensor, "... tokens"]
    ) -> Float[Tensor, "batch tokens width"]:
        """EEG tokens as input of the language model; their seconds are position ids of `hidden`."""
        if self.standardisation is not None:
            features = self.standardisation(features)
        if self.channel_gain is not None:
            features = self.channel_gain(features, channel_index)
        projected: Tensor = self.projection(features)
        return projected + self.pos_embed(channel_index)

    def embed_text(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens width"]:
        """Text ids as input of the language model."""
        return self.language_model.embed_text(ids)

    def hidden(
        self,
        embeddings: Float[Tensor, "batch tokens width"],
        position_ids: Int[Tensor, "#batch tokens"],
        mask: Bool[Tensor, "tokens tokens"] | Bool[Tensor, "batch tokens tokens"] | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """Hidden states after the final layer norm; without a mask attention is causal."""
        return self.language_model.hidden(embeddings, position_ids, mask)

    def logits(self, hidden: Float[Tensor, "*any width"]) -> Float[Tensor, "*any classes"]:
        """Scores of the merged vocabulary, for the hidden states that need them."""
        return self.language_model.logits(hidden)

    def cross_entropy(
        self,
        hidden: Float[Tensor, "*positions width"],
        targets: Int[Tensor, "*positions"],
        label_smoothing: float = 0.0,
    ) -> HeadLoss:
        """Summed loss of the class that each position should predict; see `LanguageModel.cross_entropy`."""
        return self.language_model.cross_entropy(hidden, targets, label_smoothing)
