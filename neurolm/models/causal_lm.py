"""Builds causal LMs of ``transformers``: pretrained ones, or from random weights. It is imported where one is built."""

import inspect
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2Model
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import AttentionInterface

from neurolm.config import UserError
from neurolm.models.language_model import LanguageModelConfig
from neurolm.text.code import TextCode
from neurolm.text.own_code import own_code

ATTENTION = "neurolm_sdpa"
"""Torch's attention, registered under a name for which ``transformers`` builds no mask of its own.

With its own name "sdpa" and no mask, ``transformers`` takes position ids that do not count up, as EEG's do, for several
packed texts; and with a mask it waits for the device to look whether it can be left out.
"""
AttentionInterface.register(ATTENTION, sdpa_attention_forward)


def is_plain_gpt2(settings: Any) -> bool:
    """Whether a transformers config is a GPT-2 that differs from the standard one by nothing but sizes and dropout."""
    if settings.model_type != "gpt2":
        return False
    standard = GPT2Config()
    unusual = ("n_inner", "layer_norm_epsilon", "scale_attn_weights", "scale_attn_by_inverse_layer_idx")
    return all(getattr(settings, name) == getattr(standard, name) for name in unusual)


def from_config(config: LanguageModelConfig, num_rows: int) -> Any:
    """A causal LM with random weights: of the config's architecture, or else GPT-2.

    GPT-2 starts as released: deviation 0.02, residual branches scaled by 1 / sqrt(2 layers), biases 0.
    """
    if config.architecture is not None:
        try:
            settings = AutoConfig.for_model(**config.architecture | {"vocab_size": num_rows})
            return AutoModelForCausalLM.from_config(settings, dtype=torch.float32, attn_implementation=ATTENTION)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"language_model.architecture: transformers cannot build it: {error}") from error
    base: Any = GPT2Model(
        GPT2Config(
            vocab_size=num_rows,
            n_positions=config.context,
            n_embd=config.hidden_size,
            n_layer=config.num_layers,
            n_head=config.num_heads,
            activation_function=config.activation,
            resid_pdrop=config.dropout,
            embd_pdrop=config.dropout,
            attn_pdrop=config.dropout,
            attn_implementation=ATTENTION,
            bos_token_id=None,  # the text code knows; GPT-2's id may be beyond the table
            eos_token_id=None,
        )
    )
    for table in (base.wte, base.wpe):
        nn.init.normal_(table.weight, std=config.embedding_init_std)
    return base


def pretrained(config: LanguageModelConfig) -> Any:
    """A causal LM with its own head; GPT-2 gets NeuroLM's activation and dropout, other families keep theirs."""
    dropout = config.dropout
    gpt2 = {"resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout}
    options = {} if config.gguf_file is None else {"gguf_file": config.gguf_file}
    try:
        settings: Any = AutoConfig.from_pretrained(config.name_or_path, **options)
        if settings.model_type == "gpt2":
            settings.update({"activation_function": config.activation, **gpt2})
        return AutoModelForCausalLM.from_pretrained(
            config.name_or_path, config=settings, dtype=torch.float32, attn_implementation=ATTENTION, **options
        )
    except (KeyError, OSError, ValueError) as error:  # a family without our attention is a KeyError or a ValueError
        raise UserError(
            f"language_model.name_or_path: cannot load {config.name_or_path!r}: {error}. "
            "Give a folder that save_pretrained wrote, or leave it unset to start from random weights"
        ) from error
    except ImportError as error:
        raise UserError(
            f"language_model.gguf_file: cannot read {config.gguf_file!r} ({str(error).strip()}); "
            "pip install 'neurolm[gguf]'"
        ) from error


def code_of(model: Any, config: LanguageModelConfig) -> TextCode:
    """The text code of a pretrained model."""
    assert config.name_or_path is not None
    num_rows = len(model.get_input_embeddings().weight)
    return own_code(config.name_or_path, config.gguf_file, model.config.model_type, num_rows)


def refuse_unusable(model: Any) -> None:
    """Raise UserError for a family that cannot be told positions, or that needs a bias in its output layer."""
    family = model.config.model_type
    if "position_ids" not in inspect.signature(model.base_model.forward).parameters:
        raise UserError(f"language_model: a {family} takes no position ids, which carry EEG's time; take another model")
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        raise UserError(f"language_model: a {family}'s output layer has a bias, ours has none; take another model")
