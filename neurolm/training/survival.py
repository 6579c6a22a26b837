"""What a run does when workers, nodes or patience fail it."""

from typing import Annotated

from pydantic import Field

from neurolm.config import config


@config
class SurvivalConfig:
    """How failures are noticed and how often a run is started again; changes no trained weight."""

    max_failures: Annotated[int, Field(ge=-1)] = 3
    """Restarts of a job after a worker died or hung; -1: without end. Nodes that were announced to go do not count."""
    worker_timeout_s: Annotated[float, Field(gt=0)] = 1800.0
    """A worker that gets no further for so long hangs, and all are restarted; no step, validation or checkpoint may
    take that long."""
    start_timeout_s: Annotated[float, Field(gt=0)] = 600.0
    """How long to wait for the CPUs and GPUs of all workers before asking again."""
    replacement_wait_s: Annotated[float, Field(gt=0)] = 30.0
    """How long a run with ``min_workers`` waits for a replacement before it goes on with fewer workers."""
    resize_every_s: Annotated[float, Field(gt=0)] = 900.0
    """How often a run with ``min_workers`` looks whether it may have more workers. Growing repeats the steps since the
    last checkpoint, so save more often than this."""
    preemption_poll_s: Annotated[float, Field(gt=0)] = 2.0
    """How often to ask Ray whether a node is about to be taken away."""
