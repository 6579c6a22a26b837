"""One forward and backward pass of a real stage on tensors that have shapes and no values: its bytes and operations.

The plan follows the code instead of formulas of its own: every storage that an operation makes is counted until nobody
holds it any more, and torch's table of formulas counts the operations. Attention is the kernel that never holds all
scores, as on GPUs. What kernels take for themselves while they run is not seen.

One thing that only a trace shows: a step that reads EEG and text passes through the language model twice, and the
gradients of the first pass wait, whole, until those of the second are added. No ZeRO stage can partition them before.
"""

import functools
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from neurolm.sequences import PATCH_POINTS, Batch, WindowGroup
from neurolm.text.instructions import EncodedTask
from neurolm.training.flops import FORMULAS
from neurolm.training.stage import Stage, trainable_blocks


@dataclass(frozen=True)
class WindowShape:
    """Windows of one shape and, in stage 3, one task."""

    num_channels: int
    num_seconds: int
    task: str | None = None

    @property
    def num_tokens(self) -> int:
        """EEG tokens of a window."""
        return self.num_channels * self.num_seconds

    def __str__(self) -> str:
        return f"{self.num_channels} channels x {self.num_seconds} s" + (f" ({self.task})" if self.task else "")


@dataclass(frozen=True)
class Trace:
    """What a forward and backward pass takes."""

    activation_bytes: int
    """The most that exists at a time beside weights and finished gradients; gradients that wait are part of it."""
    peak_bytes: int
    """The most that exists at a time beside weights, gradients included as they are finished."""
    flop: int
    """Floating-point operations of matrix products, convolutions and attention (whose backward pass computes scores
    again, as its kernels do); a multiply-add is two, and nothing is saved for what a mask hides."""


class Tracer:
    """Traces passes of a stage that was built on the meta device; it is converted once, and cannot compute."""

    def __init__(self, stage: Stage, tasks: dict[str, EncodedTask], weight_dtype: torch.dtype = torch.float32) -> None:
        self._mode = FakeTensorMode()
        self._stage = stage
        self._tasks = tasks
        self._blocks = [(block, block.forward) for block in trainable_blocks(stage)]
        with self._mode:
            for module in stage.modules():
                for name, parameter in module._parameters.items():
                    if parameter is not None:
                        empty = torch.empty(parameter.shape, dtype=weight_dtype, device="cpu")
                        module._parameters[name] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
                for name, buffer in module._buffers.items():
                    if buffer is not None:
                        module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu")

    @functools.lru_cache(maxsize=256)  # noqa: B019 - a tracer lives as long as its plan
    def __call__(
        self, shape: WindowShape | None, num_windows: int, num_crops: int, text_length: int, checkpointing: bool = False
    ) -> Trace:
        """The pass of a micro-batch of so many windows of a shape and crops of text.

        With ``checkpointing``, trainable transformer blocks keep their input alone and are computed again.
        """
        for block, forward in self._blocks:
            again = functools.partial(checkpoint, forward, use_reentrant=False, preserve_rng_state=False)
            block.forward = again if checkpointing else forward
        with self._mode:
            return self._trace(self._batch(shape, num_windows, num_crops, text_length))

    def _trace(self, batch: Batch) -> Trace:
        totals = {name: float(count) for name, count in batch.counts.items()}
        tensors = [*self._stage.parameters(), *self._stage.buffers()]
        ledger = _Ledger(tensor.untyped_storage() for tensor in tensors)
        trainable = [parameter for parameter in self._stage.parameters() if parameter.requires_grad]
        handles = [parameter.register_post_accumulate_grad_hook(ledger.finished) for parameter in trainable]
        with ledger:
            with self._stage.products():
                loss = self._stage.loss_shares(batch, totals)["loss"]  # no passes of nothing: every worker has windows
            loss.backward()
        for handle in handles:
            handle.remove()
        self._stage.zero_grad(set_to_none=True)
        return Trace(ledger.activations, ledger.peak, ledger.flop)

    def _batch(self, shape: WindowShape | None, num_windows: int, num_crops: int, text_length: int) -> Batch:
        text = torch.zeros(num_crops, text_length + 1, dtype=torch.long) if num_crops else None
        if shape is None or num_windows == 0:
            return Batch((), text)
        num_targets = 0
        if shape.task is not None:
            task = self._tasks[shape.task]
            num_targets = max(sum(task.training_text(one).is_target) for one in range(len(task.labels)))
        group = WindowGroup(
            signal=torch.zeros(num_windows, shape.num_tokens, PATCH_POINTS),
            channel_index=torch.zeros(num_windows, shape.num_tokens, dtype=torch.long),
            time_index=torch.zeros(shape.num_tokens, dtype=torch.long),
            position=torch.zeros(num_windows, dtype=torch.long),
            num_channels=shape.num_channels,
            num_seconds=shape.num_seconds,
            task=shape.task,
            label=None if shape.task is None else torch.zeros(num_windows, dtype=torch.long),
            num_answer_targets=num_targets * num_windows,
        )
        return Batch((group,), text)


class _Ledger(TorchDispatchMode):
    """Adds up the storages that live, from the operations' results, and the operations."""

    def __init__(self, known: Iterable[torch.UntypedStorage]) -> None:
        super().__init__()
        self.peak = self.activations = self.flop = 0
        self._live = self._gradients = 0
        self._seen: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        for storage in known:
            self._meet(storage, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, meet what it made, and count it."""
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        if (formula := FORMULAS.get(func.overloadpacket)) is not None:
            self.flop += formula(*args, **kwargs, out_val=made)
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self._meet(storage, storage.nbytes())
        return made

    def finished(self, parameter: Tensor) -> None:
        """A parameter's gradient is no activation any more."""
        assert parameter.grad is not None
        self._gradients += parameter.grad.untyped_storage().nbytes()

    def _meet(self, storage: torch.UntypedStorage, num_bytes: int) -> None:
        key = storage._cdata
        if key in self._seen:
            return

        def gone(_: object) -> None:
            self._live -= num_bytes
            del self._seen[key]

        self._seen[key] = weakref.ref(storage, gone)
        self._live += num_bytes
        self.peak = max(self.peak, self._live)
        self.activations = max(self.activations, self._live - self._gradients)
