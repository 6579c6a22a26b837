"""Which elements of which tensors a worker holds under DeepSpeed's ZeRO, as pieces of our own training state.

ZeRO keeps master weights and Adam's moments in flat buffers. In stages 1 and 2 the parameters of a group lie one behind
the other and every worker has an equal part of the whole; a parameter says by ``_hp_mapping`` which of its elements lie
where in this worker's part. In stage 3 every parameter is cut by itself, and what is frozen too; the optimizer's
``grad_position`` says in which buffer a slice lies. What ends a buffer or a slice beyond the parameters is padding.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from neurolm.training.optimizer import start_moments
from neurolm.training.pieces import Piece, moments_of, named_tensors
from neurolm.training.tensor_file import TensorSpec, TensorStream
from neurolm.training.training_state import TrainingState


class _Slice(NamedTuple):
    """This worker's elements of one tensor."""

    buffer: Tensor
    """The tensor in which they lie [flat]."""
    offset: int
    """Their place in it."""
    length: int
    start: int
    """Their place in the flattened tensor."""
    shape: tuple[int, ...]
    is_trained: bool
    is_replicated: bool = False

    @property
    def values(self) -> Tensor:
        """The elements, in place."""
        return self.buffer.detach().narrow(0, self.offset, self.length)


def pieces(engine: Any) -> Iterator[Piece]:
    """What this worker of a DeepSpeed engine holds of every tensor of its module."""
    states = engine.optimizer.optimizer.state
    for name, aliases, tensor in named_tensors(engine.module):
        one = _slice(engine.optimizer, tensor)
        yield Piece("weight", name, one.values, one.start, one.shape, one.is_replicated, aliases=aliases)
        if one.is_trained:
            yield from moments_of(name, states.get(one.buffer, {}), one.values, one.start, one.shape, one.offset)


def load(engine: Any, state: TrainingState) -> None:
    """Read this worker's pieces of a training state; the weights that the model computes with follow from the masters.

    ZeRO counts one number of updates for all parameters. Raises TrainingStateError.
    """
    optimizer = engine.optimizer
    is_stage_3 = _is_stage_3(optimizer)
    if is_stage_3:
        optimizer._partition_all_parameters()
    steps = max(state.adam_steps.values(), default=0)
    for buffer in _buffers(optimizer):
        if not (known := optimizer.optimizer.state[buffer]) and hasattr(optimizer.optimizer, "ds_opt_adam"):
            known["step"] = 0  # DeepSpeed's Adam for the CPU counts in plain numbers
        start_moments(known, buffer, _moment_dtype(optimizer, buffer), steps)
    state.read(pieces(engine))
    if not is_stage_3:
        optimizer.update_lp_params()
        return
    for sub_group in range(len(optimizer.fp16_groups)):
        optimizer._reassign_or_swap_out_partitioned_parameters(sub_group)
    if optimizer.persistent_parameters:  # small ones, which every worker keeps whole
        optimizer.persistent_parameters[0].all_gather(optimizer.persistent_parameters)


def gathered_weights(engine: Any) -> TensorStream:
    """Master weights, frozen weights and buffers, each handed to the first worker; the others only send their part."""
    mine = [piece for piece in pieces(engine) if piece.kind == "weight"]
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, [(piece.start, len(piece.values)) for piece in mine])
    specs = {
        name: TensorSpec(piece.values.dtype, piece.shape) for piece in mine for name in (piece.name, *piece.aliases)
    }

    def gathered() -> Iterator[tuple[str, Tensor]]:
        for number, piece in enumerate(mine):
            whole = _gather(piece, [part[number] for part in parts], engine.device)
            if dist.get_rank() == 0:
                for name in (piece.name, *piece.aliases):
                    yield name, whole

    return TensorStream(specs, gathered())


def _gather(piece: Piece, places: list[tuple[int, int]], device: torch.device) -> Tensor:
    """A whole tensor on the first worker, from the start and length of each worker's elements; others send theirs."""
    own = piece.values
    if dist.get_rank() != 0:
        if len(own) and not piece.is_replicated:
            dist.send(own.to(device), dst=0)
        return own
    if len(own) == math.prod(piece.shape):
        return own.view(piece.shape).cpu()
    whole = torch.empty(piece.shape, dtype=own.dtype)
    for worker, (start, length) in enumerate(places):
        room = whole.view(-1)[start : start + length]
        if worker == 0:
            room.copy_(own)
        elif length and device.type == "cpu":
            dist.recv(room, src=worker)
        elif length:
            received = torch.empty(length, dtype=own.dtype, device=device)
            dist.recv(received, src=worker)
            room.copy_(received)
    return whole


def _slice(optimizer: Any, tensor: Any) -> _Slice:
    if hasattr(tensor, "ds_id"):
        size, length = tensor.ds_numel, tensor.ds_tensor.ds_numel
        start = min(size, dist.get_rank(tensor.ds_process_group) * length)
        length, shape = min(length, size - start), tuple(tensor.ds_shape)
        if (position := optimizer.grad_position.get(optimizer.get_param_id(tensor))) is None:
            return _Slice(tensor.ds_tensor.data.view(-1), 0, length, start, shape, is_trained=False)
        group, offset, _ = position
        return _Slice(optimizer.fp32_partitioned_groups_flat[group], offset, length, start, shape, is_trained=True)
    shape = tuple(tensor.shape)
    if not hasattr(tensor, "_hp_mapping"):
        return _Slice(tensor.detach().view(-1), 0, tensor.numel(), 0, shape, is_trained=False, is_replicated=True)
    if (mapping := tensor._hp_mapping) is None:
        return _Slice(_buffers(optimizer)[0], 0, 0, 0, shape, is_trained=True)
    own, place = mapping.hp_fragment_address, mapping.lp_fragment_address
    buffer = _buffers(optimizer)[mapping.param_group_index]
    return _Slice(buffer, own.start, own.numel, place.start, shape, is_trained=True)


def _buffers(optimizer: Any) -> list[Tensor]:
    """This worker's flat master weights."""
    if _is_stage_3(optimizer):
        return list(optimizer.fp32_partitioned_groups_flat)
    return [group["params"][0] for group in optimizer.optimizer.param_groups]


def _is_stage_3(optimizer: Any) -> bool:
    return hasattr(optimizer, "fp32_partitioned_groups_flat")


def _moment_dtype(optimizer: Any, buffer: Tensor) -> torch.dtype:
    """What Adam keeps its moments in: as torch's, the dtype of the weights; DeepSpeed's own may be told otherwise."""
    return torch.float32 if getattr(optimizer.optimizer, "fp32_optimizer_states", False) else buffer.dtype
