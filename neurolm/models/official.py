"""Names of the published checkpoints' tensors and ours.

The published files (``VQ.pt``, ``NeuroLM-{B,L,XL}.pt``) hold a dictionary whose ``model`` maps names to tensors, with
the prefix ``_orig_mod.`` where training had compiled the model. GPT-2's linear weights are stored transposed to those
of ``transformers``.
"""

import re
from collections.abc import Mapping

from torch import Tensor

PREFIX = "_orig_mod."

_BLOCK = [
    (r"\.blocks\.(\d+)\.ln_1\.", r".transformer.blocks.\1.attention_norm."),
    (r"\.blocks\.(\d+)\.ln_2\.", r".transformer.blocks.\1.mlp_norm."),
    (r"\.blocks\.(\d+)\.attn\.c_attn\.", r".transformer.blocks.\1.attention.qkv."),
    (r"\.blocks\.(\d+)\.attn\.c_proj\.", r".transformer.blocks.\1.attention.output."),
    (r"\.blocks\.(\d+)\.mlp\.c_fc\.", r".transformer.blocks.\1.mlp.up."),
    (r"\.blocks\.(\d+)\.mlp\.c_proj\.", r".transformer.blocks.\1.mlp.down."),
    (r"\.pos_embed\.", ".place.channel."),
    (r"\.time_embed\.", ".place.time."),
    (r"\.fc_norm\.", ".norm."),
]
_ENCODER = [
    (r"\.patch_embed\.l\.0\.", ".patch_embedding.linear."),
    *((rf"\.patch_embed\.conv{i + 1}\.", f".patch_embedding.convolutions.{i}.") for i in range(3)),
    *((rf"\.patch_embed\.norm{i + 1}\.", f".patch_embedding.norms.{i}.") for i in range(3)),
    *_BLOCK,
]
_DECODER = [
    (r"^decoder_freq\.", "decoders.frequency."),
    (r"^decoder_raw\.", "decoders.raw."),
    (r"^decode_task_layer_freq\.", "decoders.frequency.head."),
    (r"^decode_task_layer_raw\.", "decoders.raw.head."),
    (r"\.patch_embed\.", ".linear."),
    *_BLOCK,
]
_QUANTIZER = {
    "quantize.cluster_size": "quantizer.cluster_size",
    "quantize.embedding.weight": "quantizer.codebook",
    "quantize.embedding.initted": "quantizer.initialised",
}
_UNUSED = {"quantize.embedding.cluster_size", "quantize.embedding.embed_avg"}
"""Kept in the published files, read by nothing."""


def tokenizer_weights(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a `NeuralTokenizer` from the ``model`` of a published ``VQ.pt``, except ``quantizer.num_updates``."""
    weights = {}
    for name, tensor in _without_prefix(official).items():
        root, _, part = name.partition(".")
        if root != "VQ" or part in _UNUSED:
            continue
        if part.startswith("encoder."):
            weights[_rename(part, _ENCODER)] = tensor
        elif part.startswith("decode"):
            weights[_rename(part, _DECODER)] = tensor
        elif part in _QUANTIZER:
            weights[_QUANTIZER[part]] = tensor.bool().reshape(()) if part.endswith("initted") else tensor
        else:
            weights[_rename(part, [(r"^encode_task_layer\.", "latent_head.")])] = tensor
    return weights


def classifier_weights(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a `DomainClassifier` from the ``model`` of a published ``VQ.pt``."""
    head = "domain_classifier."
    found = _without_prefix(official)
    return {f"layers.{name.removeprefix(head)}": found[name] for name in found if name.startswith(head)}


def neurolm_weights(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a `NeuroLM` from the ``model`` of a published ``NeuroLM-*.pt``.

    The published files have the tokenizer's encoder, but neither the layers to its codes nor the codebook: these come
    from ``VQ.pt``.
    """
    weights = {}
    for name, tensor in _without_prefix(official).items():
        if name.startswith("tokenizer."):
            encoder = _rename(name.replace("tokenizer.", "encoder.", 1), _ENCODER)
            weights[f"tokenizer.{encoder}"] = tensor
        elif name.startswith("GPT2.transformer."):
            is_transposed = re.search(r"\.(c_attn|c_proj|c_fc)\.weight$", name) is not None
            ours = name.replace("GPT2.transformer.", "language_model.base.", 1)
            weights[ours] = tensor.T.contiguous() if is_transposed else tensor
        elif name == "GPT2.lm_head.weight":
            weights["language_model.head.weight"] = tensor
        else:
            weights[_rename(name, [(r"^encode_transform_layer\.", "projection.")])] = tensor
    return weights


def _without_prefix(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(PREFIX): tensor for name, tensor in official.items()}


def _rename(name: str, rules: list[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
