"""What a worker holds of a module's training state: runs of elements of its tensors and of their moments."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

Kind = Literal["weight", "exp_avg", "exp_avg_sq"]
"""A parameter's master weight, frozen weight or buffer; Adam's first and second moment of a parameter."""
MOMENTS: tuple[Kind, ...] = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Piece:
    """A run of the elements of a flattened tensor that this worker holds; it may be empty."""

    kind: Kind
    name: str
    """The parameter's or buffer's name in the module; of tied ones the first."""
    values: Tensor
    """The elements [run], where the engine keeps them: they are written from there and read into there."""
    start: int
    """Place of the first element in the flattened tensor."""
    shape: tuple[int, ...]
    """Shape of the whole tensor."""
    is_replicated: bool = False
    """Whether every worker holds the same; the first one writes it."""
    adam_steps: int = 0
    """Updates that a moment has seen."""
    aliases: tuple[str, ...] = ()
    """The other names of a tied weight."""

    @property
    def key(self) -> str:
        """Its name in a file."""
        return f"{self.kind}.{self.name}"


def named_tensors(module: nn.Module) -> Iterator[tuple[str, tuple[str, ...], Tensor]]:
    """Parameters and buffers that are part of a module's state, tied ones once, with their other names."""
    names: dict[int, list[str]] = {}
    tensors = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
        tensors[id(tensor)] = tensor
    for key, (name, *aliases) in names.items():
        yield name, tuple(aliases), tensors[key]


def moments_of(
    name: str, state: Mapping[str, Any], weight: Tensor, start: int, shape: tuple[int, ...], offset: int = 0
) -> Iterator[Piece]:
    """The pieces of Adam's moments that belong to a piece of a weight.

    ``state`` is the optimizer's, of a tensor in which the piece begins at ``offset``; empty before the first update,
    when moments are zero.
    """
    for kind in MOMENTS:
        if state:
            values = state[kind].view(-1).narrow(0, offset, len(weight))
        else:
            values = weight.new_zeros(1).expand(len(weight))
        yield Piece(kind, name, values, start, shape, adam_steps=int(state.get("step", 0)))
