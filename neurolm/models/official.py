"""The published checkpoints and ours: sizes, names and layouts, in both directions, bit by bit.

``VQ.pt`` holds the neural tokenizer with the classifier and the text table that it was aligned with, a
``NeuroLM-{B,L,XL}.pt`` the tokenizer's encoder and the language model, but neither codebook nor the layers to the
codes. Both are dictionaries whose ``model`` maps names to tensors, with the prefix ``_orig_mod.`` where training had
compiled the model. GPT-2's linear weights are stored transposed to those of ``transformers``.

The weights were trained by code with a few properties that we correct in new models. `TOKENIZER_SWITCHES` and
`NEUROLM_SWITCHES` are the settings that give them back; published weights are loaded with these, new models are not:

============================ =============== ========== ============================================================
setting                      compatible      corrected  why
============================ =============== ========== ============================================================
``compat_pad_to``            1024 (NeuroLM:  none       zero padding enters the group norms, the losses of stage 1
                             276)                       and the codebook's statistics; stage 3 padded to 276
``distance_dtype``           autocast        fp32       under bf16 the nearest code has three significant digits
``text_start``               batch           window     text positions depended on the longest window of the batch
``language_model.activation`` gelu (erf)     gelu       GPT-2 was trained with the tanh form, NeuroLM with the exact
``decoder_layers``           4               4          the paper says 3
============================ =============== ========== ============================================================

Answers are decoded as released, and compared as released, by `neurolm.evaluation.released` only.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neurolm.config import UserError
from neurolm.models.alignment import DomainClassifier
from neurolm.models.neural_tokenizer import NeuralTokenizer
from neurolm.models.neural_tokenizer_config import NeuralTokenizerConfig
from neurolm.models.neurolm import NeuroLM, NeuroLMConfig
from neurolm.text.bpe import NUM_IDS

PREFIX = "_orig_mod."
TOKENIZER_SWITCHES: dict[str, Any] = {"compat_pad_to": 1024, "distance_dtype": "autocast"}
"""Compatible settings of a `NeuralTokenizerConfig`, as stages 1 and 2 ran."""
NEUROLM_SWITCHES: dict[str, Any] = {
    "tokenizer.compat_pad_to": 276,
    "tokenizer.distance_dtype": "autocast",
    "text_start": "batch",
}
"""Compatible settings of a `NeuroLMConfig`, as stage 3 ran; stage 2 padded to 1024."""

_BLOCK = {
    ".transformer.blocks.": ".blocks.",
    ".attention_norm.": ".ln_1.",
    ".attention.qkv.": ".attn.c_attn.",
    ".attention.output.": ".attn.c_proj.",
    ".mlp_norm.": ".ln_2.",
    ".mlp.up.": ".mlp.c_fc.",
    ".mlp.down.": ".mlp.c_proj.",
    ".place.channel.": ".pos_embed.",
    ".place.time.": ".time_embed.",
    ".norm.": ".fc_norm.",
}
_TOKENIZER = {
    **{f".patch_embedding.convolutions.{i}.": f".patch_embed.conv{i + 1}." for i in range(3)},
    **{f".patch_embedding.norms.{i}.": f".patch_embed.norm{i + 1}." for i in range(3)},
    ".patch_embedding.linear.": ".patch_embed.l.0.",
    "decoders.frequency.head.": "decode_task_layer_freq.",
    "decoders.raw.head.": "decode_task_layer_raw.",
    "decoders.frequency.": "decoder_freq.",
    "decoders.raw.": "decoder_raw.",
    ".linear.": ".patch_embed.",
    "latent_head.": "encode_task_layer.",
    "quantizer.codebook": "quantize.embedding.weight",
    "quantizer.initialised": "quantize.embedding.initted",
    "quantizer.cluster_size": "quantize.cluster_size",
    **_BLOCK,
}
_NEUROLM = {
    "language_model.base.": "GPT2.transformer.",
    "language_model.head.": "GPT2.lm_head.",
    "projection.": "encode_transform_layer.",
}
_TRANSPOSED = re.compile(r"GPT2\..*\.(c_attn|c_proj|c_fc)\.weight")


class OfficialError(UserError):
    """A file that is not in the published layout, or a model that cannot be written in it."""


@dataclass(frozen=True)
class Layout:
    """Where every tensor of a model stands in a published file, names without prefix."""

    places: dict[str, str]
    """Our name to theirs; what is absent (our count of codebook updates) the files do not have."""
    shapes: dict[str, tuple[int, ...]]
    """Every tensor of the file, by their name."""

    @property
    def extra(self) -> list[str]:
        """Tensors of the file that our model has no place for: dead state, and what only stage 1 needs."""
        return sorted(self.shapes.keys() - set(self.places.values()))

    def check(self, found: Mapping[str, Tensor], source: str) -> None:
        """Compare names and shapes. Raises OfficialError that lists every one that is wrong."""
        wrong = [f"  missing {name}: expected {shape}" for name, shape in self.shapes.items() if name not in found]
        for name, tensor in found.items():
            shape, expected = tuple(tensor.shape), self.shapes.get(name)
            if expected is None:
                wrong.append(f"  unknown {name}: found {shape}")
            elif shape != expected:
                wrong.append(f"  misshapen {name}: found {shape}, expected {expected}")
        if wrong:
            raise OfficialError(
                f"{source}: {len(wrong)} tensors are not those of this model's layout; take the file that was "
                "published or exported, or mend the sizes it states:\n" + "\n".join(wrong)
            )

    def to_ours(self, official: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Their tensors under our names."""
        return {ours: _convert(theirs, official[theirs], to_ours=True) for ours, theirs in self.places.items()}

    def to_official(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our tensors, as far as given, under their names."""
        return {
            theirs: _convert(theirs, weights[ours], to_ours=False)
            for ours, theirs in self.places.items()
            if ours in weights
        }


def tokenizer_layout(config: NeuralTokenizerConfig) -> Layout:
    """The layout of a ``VQ.pt``. Raises OfficialError for a model that it cannot hold."""
    expected = {"patch_input": "signal", "norm": "window", "latent_norm": "none"}
    _require(config, expected | {"reconstruct": "both", "amplitude": "linear"})
    with torch.device("meta"):
        state = NeuralTokenizer(config).state_dict()
        classifier = DomainClassifier(config.hidden_size).layers.state_dict()
    places = {name: f"VQ.{_rename(name, _TOKENIZER)}" for name in state if name != "quantizer.num_updates"}
    shapes = {theirs: tuple(_convert(theirs, state[ours], to_ours=False).shape) for ours, theirs in places.items()}
    shapes |= {
        "VQ.quantize.embedding.cluster_size": (config.codebook_size,),
        "VQ.quantize.embedding.embed_avg": (config.codebook_size, config.codebook_dim),
        **{f"domain_classifier.{name}": tuple(tensor.shape) for name, tensor in classifier.items()},
        "wte.weight": (NUM_IDS, config.hidden_size),
    }
    return Layout(places, shapes)


def neurolm_layout(config: NeuroLMConfig) -> Layout:
    """The layout of a ``NeuroLM-*.pt``. Raises OfficialError for a model that it cannot hold."""
    _require(config, {"feature_norm": "none", "channel_gain": 0.0})
    _require(config.tokenizer, {"patch_input": "signal", "norm": "window"})
    plain = {"name_or_path": None, "architecture": None, "activation": "gelu", "text_merges": None}
    _require(config.language_model, plain)
    with torch.device("meta"):
        state = NeuroLM(config).state_dict()
    places = {}
    for name in state:
        if name.startswith("tokenizer.encoder."):
            places[name] = _rename(name.replace("tokenizer.encoder.", "tokenizer.", 1), _TOKENIZER)
        elif not name.startswith("tokenizer."):
            places[name] = _rename(name, _NEUROLM)
    shapes = {theirs: tuple(_convert(theirs, state[ours], to_ours=False).shape) for ours, theirs in places.items()}
    return Layout(places, shapes)


def without_prefix(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors without the prefix of compiled models."""
    return {name.removeprefix(PREFIX): tensor for name, tensor in official.items()}


def _convert(official_name: str, tensor: Tensor, to_ours: bool) -> Tensor:
    if _TRANSPOSED.fullmatch(official_name):
        return tensor.T
    if official_name == "VQ.quantize.embedding.initted":
        return tensor.bool().reshape(()) if to_ours else tensor.float().reshape(1)
    return tensor


def _rename(name: str, parts: Mapping[str, str]) -> str:
    for ours, theirs in parts.items():
        name = name.replace(ours, theirs)
    return name


def _require(config: Any, expected: Mapping[str, Any]) -> None:
    wrong = [
        f"{name} is {getattr(config, name)!r}, expected {value!r}"
        for name, value in expected.items()
        if getattr(config, name) != value
    ]
    if wrong:
        model = type(config).__name__.removesuffix("Config")
        raise OfficialError(
            f"the published layout cannot hold this {model}: {'; '.join(wrong)}. Only models trained so can be exported"
        )
