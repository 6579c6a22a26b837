"""Counts a stage's numbers, exactly, from its own tensors."""

import re

from neurolm.planning.memory import Sizes
from neurolm.training.stage import Stage

_PARTS = (
    (r"tokenizer\.encoder\.", "encoder"),
    (r"tokenizer\.latent_head\.", "latent head"),
    (r"tokenizer\.decoders\..*\.head\.", "decoder heads"),
    (r"tokenizer\.decoders\.", "decoders"),
    (r"tokenizer\.", "codebook and statistics"),
    (r"^classifier\.", "domain classifier"),
    (r"^text_table", "frozen text table"),
    (r"lora_", "adapters"),
    (r"language_model\.head\.", "vocabulary head"),
    (r"language_model\.base\.(wte|.*embed_tokens|word_embeddings)\.", "text table"),
    (r"language_model\.base\.(wpe|.*embed_positions)\.", "position table"),
    (r"language_model\.base\.(h|layers|.*\.layers)\.", "blocks"),
    (r"language_model\.base\.", "final norm"),
    (r"language_model\.", "row of [SEP]"),
    (r"pos_embed\.", "channel embedding"),
    (r"channel_gain\.", "channel gains"),
    (r"", "projection and its norm"),
)
"""Patterns of names, the first that is found counts."""


def count(stage: Stage) -> tuple[Sizes, dict[str, int]]:
    """Elements of a stage, in all and by part; buffers are parts as well."""
    parameters, buffers = list(stage.named_parameters()), list(stage.named_buffers())
    trainable = [parameter.numel() for _, parameter in parameters if parameter.requires_grad]
    saved = stage.state_dict()
    parts: dict[str, int] = {}
    for name, tensor in [*parameters, *buffers]:
        part = next(part for pattern, part in _PARTS if re.search(pattern, name))
        parts[part] = parts.get(part, 0) + tensor.numel()
    sizes = Sizes(
        trainable=sum(trainable),
        frozen=sum(parameter.numel() for _, parameter in parameters if not parameter.requires_grad),
        buffers=sum(buffer.numel() for _, buffer in buffers),
        largest=max(trainable),
        saved=sum(tensor.numel() for tensor in saved.values()),
        exported=sum(
            tensor.numel()
            for name, tensor in saved.items()
            if name.startswith(("model.", "tokenizer.")) and "lora_" not in name
        ),
    )
    return sizes, parts
