"""Passes that every worker makes, also one that has nothing left to do.

Engines reduce gradients parameter by parameter and wait for each on every worker; and where weights are partitioned,
modules wait for all workers to gather them. Windows of one shape are one pass, and workers' windows differ in shape. So
a worker with fewer groups makes passes of groups without windows: all operations, on no rows, with gradients of zero.
"""

from dataclasses import replace

import torch

from neurolm.sequences import Batch, WindowGroup
from neurolm.training.context import RunContext


def with_passes(batch: Batch, no_windows: WindowGroup, context: RunContext | None) -> Batch:
    """The batch with at least one group and, given a context, with as many as any worker has.

    With a context all workers must call this together.
    """
    number = len(batch.groups)
    most = max(1, number)
    if context is not None:
        numbers = torch.zeros(context.world_size, device=context.device)
        numbers[context.rank] = most
        most = int(context.all_reduce_sum(numbers).max())
    return batch if most == number else replace(batch, groups=batch.groups + (no_windows,) * (most - number))
