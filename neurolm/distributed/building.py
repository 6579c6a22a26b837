"""A model is partitioned while it is built: nobody ever holds more of it than a share and `WHOLE_AT_ONCE` elements.

Constructors, initialisers and loaders stay as they are. A parameter is whole when a module registers it and when any
function of torch is given it; those that were whole for the longest are partitioned as soon as they are together larger
than `WHOLE_AT_ONCE`. So every worker computes the same values, by the same draws of the same generator, as a process
that builds the model alone, and a loader that copies tensor after tensor loads as much as that at a time.

All workers must build the same model in the same order: partitioning and gathering are collective. An alias such as
``weight.data`` is good until another parameter is touched; change ``weight`` itself, under ``torch.no_grad()``.
"""

import ctypes
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import deepspeed
import torch
from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from neurolm.training.deepspeed_config import DeepSpeedEngineConfig

WHOLE_AT_ONCE = 2**26
"""Elements of parameters that may be whole at a time, beside those of the operation at hand (256 MB in fp32)."""


MAPPED_BYTES = 4 * 2**20
"""Tensors of a CPU from this size on have memory of their own, which goes back to the machine with them."""
M_MMAP_THRESHOLD = -3
"""glibc's number of that setting for ``mallopt``."""


def start_deepspeed() -> None:
    """Let DeepSpeed use the process group that there is."""
    # An operation for inference that DeepSpeed would compile for half a minute on a fresh machine.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend=None, auto_mpi_discovery=False)


@contextmanager
def partitioned(engine: DeepSpeedEngineConfig) -> Iterator[None]:
    """Partition what is built, and what is read or changed, in this context, which trains under ZeRO-3."""
    start_deepspeed()
    _give_freed_memory_back()
    # Else the loader of transformers has many of a model's tensors in memory before it looks at them.
    os.environ.setdefault("HF_DEACTIVATE_ASYNC_LOAD", "1")
    keeper = _Keeper(engine)
    handle = register_module_parameter_registration_hook(keeper.registered)
    try:
        with keeper:
            yield
    finally:
        handle.remove()
    keeper.finish()


def _give_freed_memory_back() -> None:
    """Keep glibc from holding the holes that weights leave in its heap when they are partitioned or rounded.

    By default it raises the size from which memory is mapped to 32 MB, more than most weights have: 3 GB of the first
    13 of NeuroLM-XL were such holes. Steps take as long.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)


class _Keeper(TorchFunctionMode):
    """Knows which parameters are whole, in the order in which they became so."""

    def __init__(self, engine: DeepSpeedEngineConfig) -> None:
        super().__init__()
        remote = None if engine.offload_parameters == "none" else engine.offload_parameters
        self._zero = deepspeed.zero.Init(remote_device=remote, dtype=torch.float32)
        self._whole: OrderedDict[int, nn.Parameter] = OrderedDict()
        self._total = 0

    def registered(self, module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        """A module has got a parameter; one that has no values yet will be another one when it has."""
        if parameter is None or parameter.is_meta:
            return
        with torch._C.DisableTorchFunction():
            self._keep_whole([parameter])

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Make the parameters whole that a function is given."""
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, nn.Parameter) and hasattr(one, "ds_id")]
        if given:
            self._keep_whole(given)
        return func(*args, **(kwargs or {}))

    def finish(self) -> None:
        """Partition what is still whole."""
        self._partition_beyond(0, ())

    def _keep_whole(self, parameters: list[nn.Parameter]) -> None:
        for parameter in parameters:
            zero: Any = parameter
            if hasattr(zero, "ds_id") and zero.ds_status == ZeroParamStatus.NOT_AVAILABLE:
                zero.all_gather()
                parameter.data = parameter.data.cpu()  # draws are the CPU's generator's on every machine
            if id(parameter) not in self._whole:
                self._whole[id(parameter)] = parameter
                self._total += parameter.numel()
        self._partition_beyond(WHOLE_AT_ONCE, parameters)

    @torch.no_grad()
    def _partition_beyond(self, limit: int, needed: Sequence[nn.Parameter]) -> None:
        """Partition the oldest; dead ones too, since workers' garbage collectors do not agree on when they die."""
        spared = {id(parameter) for parameter in needed}
        for key in list(self._whole):
            if self._total <= limit:
                return
            if key in spared:
                continue
            parameter: Any = self._whole.pop(key)
            self._total -= parameter.numel()
            if hasattr(parameter, "ds_id"):
                parameter.data = parameter.data.to(self._zero.local_device)
                parameter.partition(has_been_updated=True)
            else:
                self._zero._convert_to_zero_parameters([parameter])
