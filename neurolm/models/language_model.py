"""The language model: a causal LM of ``transformers`` over the merged vocabulary of text ids and EEG codes.

- driven by input embeddings, position ids and a boolean mask, so that EEG tokens enter beside text;
- text is written in the model's own code (`neurolm.text.code`): its tokenizer's ids, then [SEP], then unused rows;
- the output layer is untied from that table and has ``codebook_size`` more classes: EEG code k is class 50304 + k for
  GPT-2. A bias, a soft cap or a scale that a family puts behind its own output layer is no part of it.

Positions of EEG tokens are their seconds: the position table (or the rotation) doubles as a time embedding.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from neurolm.config import UserError, config
from neurolm.models.lora import LoraConfig, add_adapters, merge_adapters
from neurolm.models.vocabulary_head import HeadLoss, VocabularyHead
from neurolm.text.bpe import NUM_MERGES, gpt2_bpe, shortened_bpe
from neurolm.text.code import TextCode


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
    text_vocabulary_size: int | None = Field(default=None, ge=1)
    """Rows of the text table; EEG codes are the classes after them. Null: what the text code needs, 50304 for GPT-2."""
    text_merges: int | None = Field(default=None, ge=0, lt=NUM_MERGES)
    """Write text with the first so many of GPT-2's 50000 byte-pair merges, where no pretrained model has a code of its
    own; null: with all. A model 64 wide pre-trains nine times as fast with 768."""
    activation: Literal["gelu", "gelu_new"] = "gelu"
    """GELU of the MLP: exact, as in the released NeuroLM, or GPT-2's tanh approximation."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout of embeddings, attention and residual branches; 0 in the paper."""
    embedding_init_std: float = Field(default=0.02, gt=0)
    """Initial deviation of text and position embeddings where no pretrained model gives them."""
    name_or_path: str | None = None
    """A pretrained causal LM of transformers (name on the hub or folder); its sizes replace those above."""
    gguf_file: str | None = None
    """Name of the GGUF file in ``name_or_path`` that holds the model; its weights are read as fp32."""
    architecture: dict[str, Any] | None = None
    """The transformers config of a causal LM to start from random weights; it replaces the sizes above. Model folders
    hold it, so that they ask nobody for the model they were made from."""
    lora: LoraConfig | None = None
    """Train adapters of a pretrained model instead of its weights; null trains all of it."""

    def __post_init__(self) -> None:
        if self.name_or_path is None:
            for name in ("gguf_file", "lora"):
                if getattr(self, name) is not None:
                    raise UserError(f"{name} is set, but no pretrained model: set name_or_path too, or {name} to null")
            if self.architecture is None and self.hidden_size % self.num_heads:
                raise UserError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")
        elif self.text_merges is not None:
            raise UserError("text_merges is set, but a pretrained model has its own text code: set one of them to null")
        elif self.architecture is not None:
            raise UserError("name_or_path and architecture both say which model to build; set one of them to null")


class LanguageModel(nn.Module):
    """A causal LM without its own head, and a head over the merged vocabulary."""

    def __init__(self, config: LanguageModelConfig, codebook_size: int, text_code: TextCode | None = None) -> None:
        """``text_code`` is known where a model folder is read; None: a pretrained model's own, else of GPT-2's merges.

        Raises:
            UserError: the pretrained model cannot be loaded, has no usable tokenizer, or cannot be driven as above.
        """
        from neurolm.models import causal_lm  # seconds of import that readers of configs need not pay

        super().__init__()
        self.config = config
        pretrained = None if config.name_or_path is None else causal_lm.pretrained(config)
        if text_code is None:
            text_code = _code_from_scratch(config) if pretrained is None else causal_lm.code_of(pretrained, config)
        self.text_code = text_code
        self.text_vocabulary_size: int = config.text_vocabulary_size or self.text_code.num_rows
        self.num_classes = self.text_vocabulary_size + codebook_size
        model = causal_lm.from_config(config, self.text_vocabulary_size) if pretrained is None else pretrained
        causal_lm.refuse_unusable(model)
        self.base: Any = model.base_model
        self.hidden_size: int = self.base.config.hidden_size
        self.context: int = self.base.config.max_position_embeddings
        self.head = VocabularyHead(self.hidden_size, self.num_classes)
        self.separator: nn.Embedding | None = None
        self.uses_flex_attention = False
        if pretrained is None:
            nn.init.normal_(self.head.weight, std=0.02)
        else:
            self._take_over_vocabulary(pretrained)
        self.base.get_input_embeddings().padding_idx = None  # many end texts with it; its row must learn
        if config.lora is not None:
            self.adapt(config.lora)

    def standalone_config(self) -> LanguageModelConfig:
        """A config that builds this model, its adapters merged, without any other model; weights are not part of it."""
        from neurolm.models.causal_lm import is_plain_gpt2

        if self.config.name_or_path is None:
            return replace(self.config, text_vocabulary_size=self.text_vocabulary_size)
        architecture = json.loads(self.base.config.to_json_string(use_diff=False))
        is_plain = is_plain_gpt2(self.base.config)  # sizes say all of it, and the published layout can hold it
        return replace(
            self.config,
            hidden_size=self.hidden_size,
            num_layers=self.base.config.num_hidden_layers,
            num_heads=self.base.config.num_attention_heads,
            context=self.context,
            text_vocabulary_size=self.text_vocabulary_size,
            name_or_path=None,
            gguf_file=None,
            architecture=None if is_plain else {k: v for k, v in architecture.items() if k != "_name_or_path"},
            lora=None,
        )

    def use_flex_attention(self) -> None:
        """Compute attention with torch's FlexAttention (see `neurolm.models.flex_attention`).

        Raises:
            UserError: the model drops out attention weights, which FlexAttention cannot.
        """
        from neurolm.models.flex_attention import NAME

        if self.config.dropout:
            raise UserError(
                f"attention flex cannot drop out attention weights; set language_model.dropout = "
                f"{self.config.dropout:g} to 0, or attention to sdpa"
            )
        self.base.set_attn_implementation(NAME)
        self.uses_flex_attention = True

    def adapt(self, settings: LoraConfig) -> None:
        """Freeze all but the head and train adapters and the row of [SEP] instead (see `neurolm.models.lora`)."""
        table = self.base.get_input_embeddings().weight
        add_adapters(self.base, settings)
        self.separator = nn.Embedding(1, self.hidden_size)
        with torch.no_grad():
            self.separator.weight.copy_(table[self.text_code.sep])

    def merged(self, weights: Iterable[tuple[str, Tensor]], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """This model's state (perhaps gathered from workers) as that of a model that was never adapted.

        ``prefix`` is what its names begin with; tensors of other names pass.
        """
        if self.separator is None:
            yield from weights
            return
        module = next(name for name, one in self.named_modules() if one is self.base.get_input_embeddings())
        table_name, separator_name = f"{prefix}{module}.weight", f"{prefix}separator.weight"
        held: dict[str, Tensor] = {}
        for name, tensor in merge_adapters(self, weights, prefix):
            if name in (table_name, separator_name):
                held[name] = tensor
            else:
                yield name, tensor
        table = held[table_name].clone()
        table[self.text_code.sep] = held[separator_name][0]
        yield table_name, table

    def embed_text(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens width"]:
        """Rows of the text table, without positions."""
        embeddings: Tensor = self.base.get_input_embeddings()(ids)
        if self.separator is None:
            return embeddings
        is_separator = ids == self.text_code.sep
        return torch.where(is_separator[..., None], self.separator(torch.zeros_like(ids[:1, :1])), embeddings)

    def freeze_text_table(self) -> None:
        """Train neither the rows of text nor that of [SEP]."""
        for table in (self.base.get_input_embeddings(), self.separator):
            if table is not None:
                table.requires_grad_(False)

    def hidden(
        self,
        embeddings: Float[Tensor, "batch tokens width"],
        position_ids: Int[Tensor, "#batch tokens"],
        mask: Bool[Tensor, "tokens tokens"] | Bool[Tensor, "batch tokens tokens"] | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """The last hidden states, after the final norm. Without a mask attention is causal."""
        if not len(
            embeddings
        ):  # transformers cannot reshape nothing: one token takes its place, and its result is left
            one = F.pad(embeddings[:, :1], (0, 0, 0, 0, 0, 1))
            return self.hidden(one, position_ids.new_zeros(1, 1))[:0].expand(embeddings.shape)
        if mask is not None and mask.ndim == 2:
            mask = mask[None]
        attends: Any = None if mask is None else mask[:, None]
        if self.uses_flex_attention:
            from neurolm.models.flex_attention import block_mask

            attends = block_mask(mask, embeddings.shape[1], embeddings.device)
        weights = next(self.base.parameters()).dtype
        states: Tensor = self.base(
            inputs_embeds=embeddings.to(weights), position_ids=position_ids, attention_mask=attends, use_cache=False
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
        """Put a pretrained model's rows into the merged vocabulary; new rows start as torch's default, as released."""
        table, old_head = model.get_input_embeddings(), model.get_output_embeddings().weight
        num_old = len(table.weight)
        if num_old >= self.text_vocabulary_size:
            raise UserError(
                f"{self.config.name_or_path}: has {num_old} text ids, more than "
                f"language_model.text_vocabulary_size = {self.text_vocabulary_size} has room for beside [SEP]; "
                "raise that setting or set it to null"
            )
        self.head.weight[: len(old_head)] = old_head
        rows = torch.randn(self.text_vocabulary_size, self.hidden_size)
        rows[:num_old] = table.weight
        table.weight = nn.Parameter(rows)  # in place: some families scale what their own kind of table gives
        table.num_embeddings = self.base.config.vocab_size = self.text_vocabulary_size


def _code_from_scratch(config: LanguageModelConfig) -> TextCode:
    return gpt2_bpe() if config.text_merges is None else shortened_bpe(config.text_merges)
