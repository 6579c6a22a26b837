"""What the stages' losses have in common: sums over this worker's elements, divided by global counts."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from neurolm.models.neurolm import NeuroLM
from neurolm.sequences import Batch, WindowGroup


def share(total: Tensor, counts: Mapping[str, float], name: str, per_element: float = 1.0) -> Tensor:
    """This worker's part of a mean over all workers: its sum over the global number of elements.

    ``per_element`` is how many squared errors an element has, 1 for a cross-entropy.
    """
    return total / max(counts[name] * per_element, 1.0)


def add_by_stratum(
    sums: Float[Tensor, " strata"], group: WindowGroup, values: Float[Tensor, " elements"]
) -> Float[Tensor, " strata"]:
    """Add a group's values, of which every window has equally many, to the sums of its windows' strata."""
    if group.stratum is None:
        return sums
    return sums.index_add(0, group.stratum, values.detach().view(len(group), -1).sum(1))


def zeros_by_stratum(module: nn.Module, batch: Batch) -> Float[Tensor, " strata"]:
    """Zeros to add to, on the module's device; none where losses are not told by stratum."""
    return torch.zeros(len(batch.strata), device=next(module.parameters()).device)


def zeros_like_loss(module: nn.Module) -> Float[Tensor, ""]:
    """A zero to add sums to, on the module's device."""
    return torch.zeros((), device=next(module.parameters()).device)


def text_loss_sum(model: NeuroLM, text: Int64[Tensor, "crops length_and_one"]) -> Float[Tensor, ""]:
    """Summed cross-entropy of every next id of plain text, among all classes of the merged vocabulary."""
    read, targets = text[:, :-1], text[:, 1:]
    positions = torch.arange(read.shape[1], device=text.device).expand(len(read), -1)
    hidden = model.hidden(model.embed_text(read), positions, None)
    return model.cross_entropy(hidden, targets).total
