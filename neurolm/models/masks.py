"""Attention masks from time indices: True where a row may attend to a column.

A mask is a function of the time indices alone, so that one is built per shape, on the device, and none travels in a
batch. No padding exists, so none is masked.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def stair_step_mask(time_index: Int[Tensor, " tokens"]) -> Bool[Tensor, "tokens tokens"]:
    """The mask of multi-channel autoregression (paper, Fig. 4): a token sees every channel up to its own second."""
    return time_index[None, :] <= time_index[:, None]


def eeg_text_mask(time_index: Int[Tensor, " tokens"], num_text: int) -> Bool[Tensor, "all all"]:
    """EEG tokens followed by ``num_text`` text tokens.

    The EEG part is stair-stepping and sees no text; a text token sees the whole EEG and the text up to itself.
    """
    return answer_tree_mask(time_index, num_text, ())


def eeg_text_positions(
    time_index: Int[Tensor, " tokens"], num_text: int, text_start: int | None = None
) -> Int[Tensor, " all"]:
    """Positions of EEG and text: the second of each EEG token, then the text counting on from the last second."""
    return answer_tree_positions(time_index, num_text, (), text_start)


def answer_tree_mask(
    time_index: Int[Tensor, " tokens"], prompt_length: int, answer_lengths: Sequence[int]
) -> Bool[Tensor, "all all"]:
    """EEG, then one prompt, then several alternative answers to it, scored by a single forward pass.

    Every answer sees the EEG, the prompt and itself up to the current token, and none of the other answers: each reads
    exactly as if it alone followed the prompt.
    """
    num_eeg = len(time_index)
    num_all = num_eeg + prompt_length + sum(answer_lengths)
    mask = torch.zeros(num_all, num_all, dtype=torch.bool, device=time_index.device)
    mask[:num_eeg, :num_eeg] = stair_step_mask(time_index)
    answers = num_eeg + prompt_length
    mask[num_eeg:, :num_eeg] = True
    mask[answers:, num_eeg:answers] = True
    start = num_eeg
    for length in (prompt_length, *answer_lengths):
        stop = start + length
        mask[start:stop, start:stop] = torch.ones_like(mask[start:stop, start:stop]).tril()
        start = stop
    return mask


def answer_tree_positions(
    time_index: Int[Tensor, " tokens"],
    prompt_length: int,
    answer_lengths: Sequence[int],
    text_start: int | None = None,
) -> Int[Tensor, " all"]:
    """Positions for `answer_tree_mask`: every answer starts at the position right after the prompt.

    Text starts at ``text_start``, by default one after the window's own last second. The released code starts it one
    after the last second of the whole batch (`Batch.text_start`), so that a window's result depends on its neighbours.
    """
    start = time_index.max() + 1 if text_start is None else text_start
    counted = torch.arange(prompt_length + max(answer_lengths, default=0), device=time_index.device)
    text = torch.cat([counted[:prompt_length], *(counted[prompt_length:][:length] for length in answer_lengths)])
    return torch.cat([time_index, start + text.to(time_index.dtype)])
