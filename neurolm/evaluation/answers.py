"""Score the allowed answers of a task: no text is generated and none is parsed.

All answers stand after one prompt as a tree (`neurolm.models.masks.answer_tree_mask`), so one forward pass gives the
log-likelihood of each. It also tells what greedy decoding would write: answer k comes out exactly if each of its tokens
is the most likely one along its branch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from neurolm.models.masks import answer_tree_mask, answer_tree_positions
from neurolm.models.neurolm import NeuroLM
from neurolm.sequences import WindowGroup, eeg_features, eeg_tokens
from neurolm.text.instructions import EncodedTask


@dataclass(frozen=True)
class AnswerScores:
    """What a model makes of a task's answers, for every window of a group."""

    log_likelihoods: Float[Tensor, "windows answers"]
    """Log-likelihood of each answer's own tokens (`` Yes``; ``A``, ``)``), its end not included."""
    is_greedy: Bool[Tensor, "windows answers"]
    """Whether greedy decoding writes this answer; true for at most one."""

    @property
    def greedy_valid(self) -> Bool[Tensor, " windows"]:
        """Whether greedy decoding writes any allowed answer."""
        return self.is_greedy.any(-1)


@torch.no_grad()
def score_answers(model: NeuroLM, group: WindowGroup, task: EncodedTask, text_start: int | None = None) -> AnswerScores:
    """Score a task's answers for windows of one shape, in one forward pass.

    Text positions start at ``text_start``, by default after the windows' own last second.

    Logits are restricted to the ids that text can have, as in the released evaluation: an EEG code is no answer.
    """
    # A branch holds all of an answer but its last token, whose prediction nothing follows.
    branches = [answer[:-1] for answer in task.answers]
    lengths = [len(branch) for branch in branches]
    device = group.time_index.device
    text = torch.tensor([*task.prompt_ids, *(one for branch in branches for one in branch)], device=device)
    eeg = model.embed_eeg(eeg_features(model, group), group.channel_index)
    embeddings = torch.cat([eeg, model.embed_text(text.expand(len(group), -1))], dim=1)
    prompt_length = len(task.prompt_ids)
    positions = answer_tree_positions(group.time_index, prompt_length, lengths, text_start).expand(len(group), -1)
    mask = answer_tree_mask(group.time_index, prompt_length, lengths)
    hidden = model.hidden(embeddings, positions, mask)
    # The prompt's last token predicts every answer's first token; the branches' tokens predict the rest.
    from_prompt_end = hidden[:, group.time_index.shape[0] + prompt_length - 1 :]
    log_probabilities = model.logits(from_prompt_end)[..., : task.code.num_ids].float().log_softmax(-1)
    most_likely = log_probabilities.argmax(-1)
    likelihoods, greedy = [], []
    start = 1
    for answer, length in zip(task.answers, lengths, strict=True):
        rows = torch.tensor([0, *range(start, start + length)], device=device)
        ids = torch.tensor(answer, device=device)
        likelihoods.append(log_probabilities[:, rows, ids].sum(-1))
        greedy.append((most_likely[:, rows] == ids).all(-1))
        start += length
    return AnswerScores(torch.stack(likelihoods, dim=-1), torch.stack(greedy, dim=-1))


@torch.no_grad()
def score_in_wordings(
    model: NeuroLM, group: WindowGroup, wordings: Sequence[EncodedTask], text_start: int | None = None
) -> AnswerScores:
    """The mean over several wordings of one task: of the probability of each answer among the allowed ones.

    What greedy decoding writes is told of the first wording. A single wording's log-likelihoods stay as they are; see
    `score_answers`.
    """
    if len(wordings) > 1:
        group = replace(group, tokens=eeg_tokens(model, group))  # the encoder runs once
    scores = [score_answers(model, group, task, text_start) for task in wordings]
    if len(scores) == 1:
        return scores[0]
    probabilities = torch.stack([one.log_likelihoods.double().softmax(-1) for one in scores]).mean(0)
    return replace(scores[0], log_likelihoods=probabilities.log())
