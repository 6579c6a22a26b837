"""Bytes of a training state on every GPU and node, and what travels between them, for each way of dividing it.

Sources: the ZeRO paper (Rajbhandari et al., 2020, sections 3 and 7), and what DeepSpeed 0.19.8 allocates beside it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from neurolm.planning.trace import Trace

Offload = Literal["none", "optimizer", "all"]

STAGE3_LIVE_PARAMETERS = 10**9
"""DeepSpeed's default of ``stage3_max_live_parameters``: gathered weights that ZeRO-3 keeps for their next use."""
HOST_FACTOR = 1.5
"""What DeepSpeed's own estimate of pinned host memory multiplies its sum by."""


@dataclass(frozen=True)
class NumberFormat:
    """Bytes of each number of a trainable parameter."""

    weight: int
    gradient: int
    master: int
    """Copy of the weight that the optimizer updates; ZeRO keeps one whatever the precision."""
    moments: int
    """Both moments of AdamW together."""


FORMATS = {
    "float32": NumberFormat(4, 4, 4, 8),
    "mixed": NumberFormat(2, 2, 4, 8),
    "bfloat16": NumberFormat(2, 2, 2, 4),
}
"""float32 is what engines do unless DeepSpeed's ``weights`` (mixed) and ``states`` (bfloat16) say otherwise."""


@dataclass(frozen=True)
class Sizes:
    """Numbers of elements."""

    trainable: int
    frozen: int
    """Parameters without gradient."""
    buffers: int
    largest: int
    """Of the largest trainable tensor."""
    saved: int
    """In a checkpoint's weights and buffers."""
    exported: int
    """In the model folder."""


@dataclass(frozen=True)
class Division:
    """How a run divides its state."""

    zero_stage: int
    """0: none, plain data parallelism."""
    checkpointing: bool = False
    """Whether transformer blocks keep only their input and are computed again in the backward pass."""
    offload: Offload = "none"
    """What lies in the host's memory: nothing, the optimizer's states, or these and the weights."""

    @property
    def is_plain(self) -> bool:
        """Whether nothing is computed twice and nothing lies in the host's memory."""
        return not self.checkpointing and self.offload == "none"

    def __str__(self) -> str:
        name = f"ZeRO-{self.zero_stage}" if self.zero_stage else "no ZeRO"
        offloads = {"none": "", "optimizer": ", optimizer offloaded", "all": ", optimizer and weights offloaded"}
        return name + (", activation checkpointing" if self.checkpointing else "") + offloads[self.offload]


def divisions(num_gpus: int, can_offload: bool = True) -> Iterator[Division]:
    """All that are planned, in the order in which they are preferred: the fewer detours, the better.

    On several GPUs ZeRO-1 comes first, as every distributed run of neurolm has DeepSpeed; on one GPU plain torch, since
    there is nobody to divide anything with.
    """
    for checkpointing in (False, True):
        for stage in (1, 2) if num_gpus > 1 else (0,):
            yield Division(stage, checkpointing)
    if num_gpus > 1:
        for checkpointing in (False, True):
            yield Division(3, checkpointing)
    if not can_offload:
        return
    for checkpointing in (False, True):
        yield Division(2, checkpointing, "optimizer")
    for checkpointing in (False, True):
        yield Division(3, checkpointing, "all")


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU at the worst moment of a step, and in its node's host memory."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    buffers: int
    """Buckets of the communication and what the optimizer needs for a moment."""
    host: int

    @property
    def total(self) -> int:
        """Bytes on the GPU."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.buffers


def memory(
    sizes: Sizes,
    division: Division,
    numbers: NumberFormat,
    trace: Trace,
    *,
    num_gpus: int,
    num_micro_batches: int,
    bucket: int,
    overlap: bool,
    live: int = STAGE3_LIVE_PARAMETERS,
    update_at_once: int | None = None,
    on_cpu: bool = False,
) -> Memory:
    """What one worker needs, as the larger of its needs in the backward pass and in the update.

    Args:
        sizes: of the stage.
        division: how its state is divided.
        numbers: how its numbers are kept.
        trace: of a micro-batch.
        num_gpus: workers, all on one node.
        num_micro_batches: forward and backward passes of one step.
        bucket: elements that DeepSpeed reduces at a time.
        overlap: whether it reduces while the backward pass goes on, with a second bucket.
        live: elements of gathered weights that ZeRO-3 keeps.
        update_at_once: elements that ZeRO-3 updates at a time; None: all.
        on_cpu: for torch's loop over tensors in place of its fused update of all of them.
    """
    stage, trainable = division.zero_stage, sizes.trainable
    share = num_gpus if stage else 1
    optimizer = 0
    if division.offload == "none":
        has_master = stage > 0 or numbers.weight < numbers.master
        optimizer = (numbers.moments + (numbers.master if has_master else 0)) * trainable // share

    finished = trainable * numbers.gradient // (num_gpus if stage >= 2 else 1)
    finished = 0 if division.offload != "none" else finished
    # In a step of one micro-batch, gradients grow while activations are given back.
    is_single = num_micro_batches == 1 and stage < 2
    backward = trace.peak_bytes if is_single else finished + trace.activation_bytes
    buckets = min(bucket, trainable) * numbers.gradient * (2 if overlap else 1) if stage else 0
    update = _update_bytes(sizes, division, numbers, share, update_at_once, on_cpu)
    at_work = max(backward + buckets, finished + update)
    gradients = min(finished, at_work)
    during_backward = backward + buckets >= finished + update
    return Memory(
        weights=_weight_bytes(sizes, division, numbers, num_gpus, live),
        gradients=gradients,
        optimizer=optimizer,
        activations=backward - gradients if during_backward else 0,
        buffers=buckets if during_backward else update,
        host=_host_bytes(sizes, division, num_gpus),
    )


def _weight_bytes(sizes: Sizes, division: Division, numbers: NumberFormat, num_gpus: int, live: int) -> int:
    """Weights on one GPU, frozen ones and buffers (the codebook, never divided) included."""
    all_weights = (sizes.trainable + sizes.frozen) * numbers.weight
    if division.zero_stage == 3:
        gathered = min(sizes.trainable + sizes.frozen, live) * numbers.weight
        all_weights = gathered + (0 if division.offload == "all" else all_weights // num_gpus)
    return all_weights + 4 * sizes.buffers


def _update_bytes(
    sizes: Sizes, division: Division, numbers: NumberFormat, share: int, at_once: int | None, on_cpu: bool
) -> int:
    """What AdamW needs for a moment: roots of the second moments; under ZeRO also its share of gradients once more."""
    if division.offload != "none":
        return 0
    if on_cpu:
        return 2 * 4 * sizes.largest
    elements = sizes.trainable // share
    if division.zero_stage == 3 and at_once is not None:
        elements = min(elements, at_once)
    return (numbers.moments // 2 + (numbers.master if division.zero_stage else 0)) * elements


def _host_bytes(sizes: Sizes, division: Division, num_gpus: int) -> int:
    """DeepSpeed's own estimates of what offloading needs on a node (its ``estimate_zero*_model_states_mem_needs``)."""
    if division.offload == "optimizer":
        return int(sizes.trainable * max(4 * num_gpus, 16) * HOST_FACTOR)
    return int(sizes.trainable * 18 * HOST_FACTOR) if division.offload == "all" else 0


def traffic(sizes: Sizes, division: Division, numbers: NumberFormat, *, num_gpus: int, num_micro_batches: int) -> int:
    """Bytes that each GPU sends in a step (and receives), by rings.

    Without ZeRO and with ZeRO-1 gradients are reduced once a step; with ZeRO-2 and 3 after every micro-batch. ZeRO-3
    gathers weights before every forward and backward pass instead of once after the update; frozen ones too.
    """
    trainable, times = sizes.trainable, num_micro_batches
    reduced = trainable * numbers.gradient * (times if division.zero_stage >= 2 else 1)
    gathered = trainable * numbers.weight
    if division.zero_stage == 3:
        gathered = (2 * trainable + sizes.frozen) * numbers.weight * times
    return int((reduced + gathered) * (num_gpus - 1) / num_gpus)
