"""Counts the floating-point operations of a batch's forward and backward pass by its shapes, without computing.

A copy of the stage whose tensors have shapes and no values is passed one window of each shape once; operations grow in
proportion to the windows. Nothing is counted twice, whatever the engine computes again to save memory.
"""

import copy
import logging
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from neurolm.models.language_model import LanguageModel
from neurolm.sequences import Batch, EEGTokens, WindowGroup
from neurolm.training.stage import Stage, trainable_blocks

logger = logging.getLogger(__name__)

T = TypeVar("T", WindowGroup, EEGTokens)


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))


def _attention_backward(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape))


FORMULAS: dict[Any, Callable[..., int]] = flop_registry | {
    torch.ops.aten.addmm_: flop_registry[torch.ops.aten.addmm],
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""Torch's own counts, and two that its table lacks: sums in place, and attention on CPUs, counted as that of GPUs."""


class BatchFlops:
    """Floating-point operations of batches of one stage; made before an engine takes the stage over.

    Matrix products, convolutions and attention count, a multiply-add as two; the plan counts with the same formulas.
    """

    def __init__(self, stage: Stage) -> None:
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._known: dict[tuple[object, ...], float] = {}
        self._stage = _without_values(stage, self._mode)

    def __call__(self, batch: Batch) -> float:
        """Operations of a micro-batch; not a number where a model cannot be passed without values."""
        total, text = 0.0, batch.text
        for group in batch.groups:
            shape = (group.num_channels, group.num_seconds, group.task, group.tokens is None, text is not None)
            if shape not in self._known:
                self._known[shape] = self._count(lambda one=group: Batch((_one_window(one),)), text is not None)  # type: ignore[misc]
            total += len(group) * self._known[shape]
        if text is not None and len(text):
            length = text.shape[1]
            if (length,) not in self._known:
                self._known[(length,)] = self._count(lambda: Batch((), torch.zeros(1, length, dtype=torch.long)), True)
            total += len(text) * self._known[(length,)]
        return total

    def _count(self, make_batch: Callable[[], Batch], has_text: bool) -> float:
        try:
            with self._mode, _Counter() as counter:
                batch = make_batch()
                totals = {name: float(count) for name, count in batch.counts.items()}
                self._stage(batch, totals | {"text_tokens": float(has_text)})["loss"].backward()
            return float(counter.flop)
        except Exception as error:  # a model that looks at its values; training need not care
            logger.warning("operations cannot be counted (%s); FLOP/s and MFU are left out", error)
            return float("nan")
        finally:
            self._stage.zero_grad(set_to_none=True)


class _Counter(TorchDispatchMode):
    """Adds up the operations that pass."""

    flop = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        if (formula := FORMULAS.get(func.overloadpacket)) is not None:
            self.flop += formula(*args, **kwargs, out_val=made)
        return made


def _without_values(stage: Stage, mode: FakeTensorMode) -> Stage:
    """A copy of the stage with empty parameters and buffers, also where ZeRO-3 has already divided them."""
    empty: dict[int, Any] = {}
    for tensor in [*stage.parameters(), *stage.buffers()]:
        with mode:
            one = torch.empty(getattr(tensor, "ds_shape", tensor.shape), dtype=tensor.dtype, device="cpu")
            is_parameter = isinstance(tensor, nn.Parameter)
            empty[id(tensor)] = nn.Parameter(one, requires_grad=tensor.requires_grad) if is_parameter else one
    if stage.passes_with is not None:
        empty[id(stage.passes_with)] = None  # the other workers are no part of it
    copied = copy.deepcopy(stage, empty)
    copied.with_passes = lambda batch: batch  # type: ignore[method-assign]  # passes without windows are no work
    for block in trainable_blocks(copied):
        vars(block).pop("forward", None)  # what would compute it again in the backward pass
    for module in copied.modules():
        if isinstance(module, LanguageModel) and module.uses_flex_attention:
            module.base.set_attn_implementation("sdpa")
            module.uses_flex_attention = False
    return copied


def _one_window(group: WindowGroup) -> WindowGroup:
    """The shapes of a group's first window."""
    tokens = None if group.tokens is None else _first_row(group.tokens)
    time_index = torch.zeros_like(group.time_index)
    num_targets = group.num_answer_targets // len(group)
    row = replace(_first_row(group), stratum=None, windows_by_stratum=())
    return replace(row, time_index=time_index, tokens=tokens, num_answer_targets=num_targets, texts=None)


def _first_row(part: T) -> T:
    tensors = {one.name: value for one in fields(part) if isinstance(value := getattr(part, one.name), Tensor)}
    rows: dict[str, Any] = {name: torch.zeros(1, *one.shape[1:], dtype=one.dtype) for name, one in tensors.items()}
    return replace(part, **rows)
