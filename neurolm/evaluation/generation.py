"""Greedy decoding of an answer, token by token; evaluation itself scores answers instead (`score_answers`).

It exists to compare with the released code, whose mask breaks after the first token: extended with numbers, it turns
from *may attend* into *is added to the scores*. From then on nothing is hidden, padding included, and what was allowed
merely weighs e times more. ``mask="released"`` gives exactly that; the default keeps the mask it began with.
"""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neurolm.models.masks import eeg_text_mask, eeg_text_positions
from neurolm.models.neurolm import NeuroLM
from neurolm.models.place_embedding import PAD_CHANNEL
from neurolm.sequences import WindowGroup, eeg_features

NUM_TOKENS = 5
"""Tokens that the released evaluation decodes."""


class Written(NamedTuple):
    """What a model wrote after the prompt."""

    ids: Int[Tensor, "windows tokens"]
    logits: Float[Tensor, "windows tokens text_ids"]
    """Scores of the ids that text can have, of which each token is the largest."""


@torch.no_grad()
def write_answer(
    model: NeuroLM,
    group: WindowGroup,
    prompt_ids: tuple[int, ...],
    *,
    num_tokens: int = NUM_TOKENS,
    mask: Literal["boolean", "released"] = "boolean",
    text_start: int | None = None,
) -> Written:
    """Decode greedily after one prompt, for windows of one shape.

    Args:
        model: the model, in evaluation mode.
        group: the windows; what they are asked is ``prompt_ids``.
        prompt_ids: [SEP] and the question.
        num_tokens: how many tokens to decode; an end of text does not stop it, as released.
        mask: boolean, or as released wrong from the second token on.
        text_start: position of [SEP]; None: after the windows' own last second.
    """
    time_index, channel_index = group.time_index, group.channel_index
    weights = model.tokenizer.token_weights(group.signal) if mask == "released" else None
    num_padding = 0
    if weights is None:
        features = eeg_features(model, group)
    else:
        # Padding tokens are all alike, so one stands for them here too.
        features = model.tokenizer.encoder(group.signal, channel_index, group.time_indices, weights)
        num_padding, channel_index = int(weights[-1]), F.pad(channel_index, (0, 1), value=PAD_CHANNEL)
    eeg = model.embed_eeg(features, channel_index)
    text = torch.tensor(prompt_ids, device=time_index.device).expand(len(eeg), -1)
    steps = []
    for step in range(num_tokens):
        positions = eeg_text_positions(time_index, text.shape[1], text_start)
        attention = eeg_text_mask(time_index, text.shape[1])
        if num_padding:
            positions = _insert_zero(positions[None], len(time_index))[0]
            attention = _insert_zero(_insert_zero(attention, len(time_index)).T, len(time_index)).T
            attention[len(time_index), : len(time_index)] = True
        if mask == "released" and step:
            attention = _as_released(attention, step, len(time_index), num_padding).to(eeg.dtype)
        embeddings = torch.cat([eeg, model.embed_text(text)], dim=1)
        hidden = model.hidden(embeddings, positions.expand(len(eeg), -1), attention)
        steps.append(model.logits(hidden[:, -1])[:, : model.text_code.num_ids])
        text = torch.cat([text, steps[-1].argmax(-1, keepdim=True)], dim=1)
    return Written(text[:, len(prompt_ids) :], torch.stack(steps, dim=1))


def _as_released(
    mask: Bool[Tensor, "all all"], num_written: int, padding: int, num_padding: int
) -> Float[Tensor, "all all"]:
    """What the released code adds to the scores: 1 where allowed, 0 elsewhere; written tokens are allowed all before.

    The key of ``num_padding`` equal tokens, at place ``padding``, gets the weight of all of them.
    """
    added = mask.float()
    added[-num_written:] = torch.ones_like(added[-num_written:]).tril(len(mask) - num_written)
    if num_padding:
        added[:, padding] += math.log(num_padding)
    return added


def _insert_zero(rows: Tensor, place: int) -> Tensor:
    """Rows with a zero (or False) put in at ``place``."""
    return torch.cat([rows[:, :place], torch.zeros_like(rows[:, :1]), rows[:, place:]], dim=1)
