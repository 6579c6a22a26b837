"""The sizes that a published checkpoint states about itself, and what it would state about a model of ours.

``VQ.pt`` has ``encoder_args`` and ``decoder_args``, ``NeuroLM-*.pt`` has ``model_args``; what neither says is read off
the tensors. Where those contradict each other the majority counts, so that a damaged tensor is named and not believed.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from neurolm.models.language_model import LanguageModelConfig
from neurolm.models.neural_tokenizer_config import NeuralTokenizerConfig
from neurolm.models.neurolm import NeuroLMConfig
from neurolm.models.official import OfficialError, without_prefix
from neurolm.text.bpe import gpt2_bpe


def tokenizer_config(checkpoint: Mapping[str, Any]) -> NeuralTokenizerConfig:
    """The sizes of a ``VQ.pt``: what it states about itself, and the codebook's from its tensors."""
    encoder, decoder = checkpoint["encoder_args"], checkpoint["decoder_args"]
    found = without_prefix(checkpoint["model"])
    codebook = [f"VQ.quantize.{name}" for name in ("cluster_size", "embedding.weight", "embedding.cluster_size")]
    rows = _rows(found, [*codebook, "VQ.quantize.embedding.embed_avg"])
    return NeuralTokenizerConfig(
        hidden_size=encoder["n_embd"],
        num_layers=encoder["n_layer"],
        num_heads=encoder["n_head"],
        decoder_layers=decoder["n_layer"],
        codebook_size=_most_common(rows, NeuralTokenizerConfig().codebook_size),
        codebook_dim=decoder["in_chans"],
    )


def neurolm_config(
    checkpoint: Mapping[str, Any], tokenizer: NeuralTokenizerConfig | None = None, num_heads: int | None = None
) -> NeuroLMConfig:
    """The sizes of a ``NeuroLM-*.pt``.

    It does not say how many heads its tokenizer has, nor how long its codes are. Both come from ``tokenizer`` where it
    is given; otherwise ``num_heads`` says the first (12 at the published width) and the second has no meaning.

    Raises:
        OfficialError: the heads are neither published nor given.
    """
    found, about = without_prefix(checkpoint["model"]), checkpoint["model_args"]
    if tokenizer is None:
        published = NeuralTokenizerConfig()
        norms = re.compile(r"tokenizer\.(blocks\.\d+\.ln_[12]|fc_norm)\.weight")
        width = _most_common(_rows(found, filter(norms.fullmatch, found)), published.hidden_size)
        if num_heads is None and width != published.hidden_size:
            raise OfficialError(
                f"the file does not say how many heads its tokenizer of width {width} has; give the tokenizer it was "
                "trained with, or set tokenizer.num_heads"
            )
        blocks = {name.split(".")[2] for name in found if name.startswith("tokenizer.blocks.")}
        num_codes = sum(_rows(found, ["GPT2.lm_head.weight"])) - about["vocab_size"]
        tokenizer = NeuralTokenizerConfig(
            hidden_size=width,
            num_layers=max(len(blocks), 1),
            num_heads=num_heads or published.num_heads,
            codebook_size=num_codes if num_codes > 1 else published.codebook_size,
        )
    language_model = LanguageModelConfig(
        hidden_size=about["n_embd"],
        num_layers=about["n_layer"],
        num_heads=about["n_head"],
        context=about["block_size"],
        text_vocabulary_size=about["vocab_size"],
        dropout=about["dropout"],
    )
    return NeuroLMConfig(tokenizer=tokenizer, language_model=language_model)


def tokenizer_args(config: NeuralTokenizerConfig) -> dict[str, dict[str, Any]]:
    """What a ``VQ.pt`` states about a tokenizer."""
    sizes: dict[str, Any] = {"n_head": config.num_heads, "n_embd": config.hidden_size, "block_size": 1024}
    sizes |= {"bias": False, "dropout": 0.0, "num_classes": 0}
    return {
        "encoder_args": {"n_layer": config.num_layers, **sizes, "in_chans": 1, "out_chans": 16},
        "decoder_args": {"n_layer": config.decoder_layers, **sizes, "in_chans": config.codebook_dim},
    }


def neurolm_args(config: LanguageModelConfig) -> dict[str, dict[str, Any]]:
    """What a ``NeuroLM-*.pt`` states about its language model."""
    sizes: dict[str, Any] = {"n_layer": config.num_layers, "n_head": config.num_heads, "n_embd": config.hidden_size}
    sizes |= {
        "block_size": config.context,
        "bias": True,
        "vocab_size": config.text_vocabulary_size or gpt2_bpe().num_rows,
    }
    return {"model_args": sizes | {"dropout": config.dropout}}


def _rows(found: Mapping[str, Tensor], names: Iterable[str]) -> list[int]:
    """First sizes of the tensors that are there."""
    return [found[name].shape[0] for name in names if name in found and found[name].ndim]


def _most_common(values: list[int], otherwise: int) -> int:
    return Counter(values).most_common(1)[0][0] if values else otherwise
