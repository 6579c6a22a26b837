"""How well a language model still knows its language: the loss of held-out text, by token and by byte."""

import math

import torch
from jaxtyping import Int64
from torch import Tensor

from neurolm.models.neurolm import NeuroLM

LANGUAGE = "language_"
"""What the names of these metrics begin with."""
POSITIONS_AT_ONCE = 256
"""Positions whose scores of all ids exist at a time: 51 MB with GPT-2's."""


@torch.no_grad()
def language_metrics(model: NeuroLM, crops: Int64[Tensor, "crops length_and_one"], num_bytes: int) -> dict[str, float]:
    """Nats for each id and for each byte of held-out text, and the perplexity, which is e to the power of the first.

    Probabilities are among the ids that text can have: an EEG code is no word. By byte, models with different text
    codes compare. ``num_bytes`` is how many bytes of UTF-8 the predicted ids are.
    """
    total = 0.0
    for crop in crops:
        read, targets = crop[:-1], crop[1:]
        hidden = model.hidden(model.embed_text(read[None]), torch.arange(len(read), device=crop.device)[None])[0]
        for rows, ids in zip(hidden.split(POSITIONS_AT_ONCE), targets.split(POSITIONS_AT_ONCE), strict=True):
            log_probabilities = model.logits(rows)[:, : model.text_code.num_ids].float().log_softmax(-1)
            total -= float(log_probabilities.gather(1, ids[:, None]).double().sum())
    per_token = total / crops[:, 1:].numel()
    return {
        f"{LANGUAGE}nats_per_token": per_token,
        f"{LANGUAGE}nats_per_byte": total / num_bytes,
        f"{LANGUAGE}perplexity": math.exp(min(per_token, 700.0)),
    }
