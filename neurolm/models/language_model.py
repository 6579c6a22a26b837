"""The language model: a causal LM of ``transformers`` over the merged vocabulary of text ids and EEG codes.

- driven by input embeddings, position ids and a boolean mask, so that EEG tokens enter beside text;
- text ids have a table of 50304 rows: GPT-2's 50257, then [SEP], then unused ones;
- the output layer is untied from that table and has ``codebook_size`` more classes: EEG code k is class 50304 + k.

Positions of EEG tokens are their seconds: the position table (or the rotation) doubles as a time embedding.
"""

from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2Model
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import AttentionInterface

from neurolm.config import UserError, config
from neurolm.models.vocabulary_head import HeadLoss, VocabularyHead

ATTENTION = "neurolm_sdpa"
"""Torch's attention, registered under a name for which ``transformers`` builds no mask of its own.

With its own name "sdpa" and no mask, ``transformers`` takes position ids that do not count up, as EEG's do, for several
packed texts; and with a mask it waits for the device to look whether it can be left out.
"""
AttentionInterface.register(ATTENTION, sdpa_attention_forward)


@config
class LanguageModelConfig:
    """The causal language model; defaults are GPT-2 small, as in NeuroLM-B."""

    hidden_size: int = Field(default=768, ge=1)
    """Width; 1024 in NeuroLM-L, 1600 in NeuroLM-XL."""
    num_layers: int = Field(default=12, ge=1)
    """Blocks; 24 in NeuroLM-L, 48 in NeuroLM-XL."""
    num_heads: int = Field(default=12, ge=1)
    """Attention heads; 16 in NeuroLM-L, 25 in NeuroLM-XL."""
    context: int = Field(default=1024, ge=1)
    """Rows of the position table."""
    text_vocabulary_size: int = Field(default=50304, ge=1)
    """Rows of the text table; EEG codes are the classes after them."""
    activation: Literal["gelu", "gelu_new"] = "gelu"
    """GELU of the MLP: exact, as in the released NeuroLM, or GPT-2's tanh approximation."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout of embeddings, attention and residual branches; 0 in the paper."""
    embedding_init_std: float = Field(default=0.02, gt=0)
    """Initial deviation of text and position embeddings where no pretrained model gives them."""
    name_or_path: str | None = None
    """A pretrained causal LM of transformers (name on the hub or folder); its sizes replace those above."""

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise UserError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")


class LanguageModel(nn.Module):
    """A causal LM without its own head, and a head over the merged vocabulary."""

    def __init__(self, config: LanguageModelConfig, codebook_size: int) -> None:
        super().__init__()
        self.config = config
        self.num_classes = config.text_vocabulary_size + codebook_size
        model = _from_config(config) if config.name_or_path is None else _pretrained(config)
        self.base: Any = model.base_model
        self.hidden_size: int = self.base.config.hidden_size
        self.context: int = self.base.config.max_position_embeddings
        self.head = VocabularyHead(self.hidden_size, self.num_classes)
        if config.name_or_path is None:
            nn.init.normal_(self.head.weight, std=0.02)
        else:
            self._take_over_vocabulary(model)

    def embed_text(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens width"]:
        """Rows of the text table, without positions."""
        embeddings: Tensor = self.base.get_input_embeddings()(ids)
        return embeddings

    def hidden(
        self,
        embeddings: Float[Tensor, "batch tokens width"],
        position_ids: Int[Tensor, "#batch tokens"],
        mask: Bool[Tensor, "tokens tokens"] | Bool[Tensor, "batch tokens tokens"] | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """The last hidden states, after the final norm. Without a mask attention is causal."""
        if mask is not None:
            mask = mask[None, None] if mask.ndim == 2 else mask[:, None]
        states: Tensor = self.base(
            inputs_embeds=embeddings, position_ids=position_ids, attention_mask=mask, use_cache=False
        ).last_hidden_state
        return states

    def logits(self, hidden: Float[Tensor, "*any width"]) -> Float[Tensor, "*any classes"]:
        """Scores of all classes. The head is a third of a small model's work: call it only where there is a target."""
        scores: Tensor = self.head(hidden)
        return scores

    def cross_entropy(
        self,
        hidden: Float[Tensor, "*positions width"],
        targets: Int[Tensor, "*positions"],
        label_smoothing: float = 0.0,
    ) -> HeadLoss:
        """Loss of the class that each position should predict (Eq. 5, 7 and 8), among all classes.

        ``label_smoothing`` is the part of each target that is spread over all classes. Sums are never divided here.
        """
        return HeadLoss(*self.head(hidden, targets, label_smoothing))

    @torch.no_grad()
    def _take_over_vocabulary(self, model: Any) -> None:
        """Put a pretrained model's rows into the merged vocabulary; new rows keep torch's default, as released."""
        old_table, old_head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        num_old = len(old_table)
        if num_old > self.config.text_vocabulary_size:
            raise UserError(
                f"{self.config.name_or_path}: has {num_old} text ids, more than "
                f"language_model.text_vocabulary_size = {self.config.text_vocabulary_size}; raise that setting"
            )
        table = nn.Embedding(self.config.text_vocabulary_size, self.hidden_size)
        table.weight[:num_old] = old_table
        self.head.weight[: len(old_head)] = old_head
        self.base.set_input_embeddings(table)
        self.base.config.vocab_size = self.config.text_vocabulary_size


def _from_config(config: LanguageModelConfig) -> Any:
    """GPT-2 with random weights: deviation 0.02, residual branches scaled by 1 / sqrt(2 layers), biases 0."""
    base: Any = GPT2Model(
        GPT2Config(
            vocab_size=config.text_vocabulary_size,
            n_positions=config.context,
            n_embd=config.hidden_size,
            n_layer=config.num_layers,
            n_head=config.num_heads,
            activation_function=config.activation,
            resid_pdrop=config.dropout,
            embd_pdrop=config.dropout,
            attn_pdrop=config.dropout,
            attn_implementation=ATTENTION,
        )
    )
    for table in (base.wte, base.wpe):
        nn.init.normal_(table.weight, std=config.embedding_init_std)
    return base


def _pretrained(config: LanguageModelConfig) -> Any:
    """A causal LM with its own head; GPT-2 gets NeuroLM's activation and dropout, other families keep theirs."""
    dropout = config.dropout
    gpt2 = {"resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout}
    try:
        settings: Any = AutoConfig.from_pretrained(config.name_or_path)
        if settings.model_type == "gpt2":
            settings.update({"activation_function": config.activation, **gpt2})
        return AutoModelForCausalLM.from_pretrained(
            config.name_or_path, config=settings, dtype=torch.float32, attn_implementation=ATTENTION
        )
    except OSError as error:
        raise UserError(
            f"language_model.name_or_path: cannot load {config.name_or_path!r}: {error}. "
            "Give a folder that save_pretrained wrote, or leave it unset to start from random weights"
        ) from error
