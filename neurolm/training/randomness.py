"""The randomness of a training step (dropout) as a function of the run's seed, the step and the worker.

Nothing is drawn from a generator that goes on from step to step, so no generator's state belongs into a checkpoint: a
run that resumes at a step draws what it would have drawn, on CPUs and GPUs, and also where the number of workers has
changed, which would leave states of some workers over or missing. On another number of workers the masks of dropout
differ, as the windows that they fall on do; without dropout nothing is random after a run's start.
"""

import random

import numpy as np
import torch


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch (CPU and GPUs), NumPy and Python for one worker's step; workers draw differently."""
    first, second = np.random.SeedSequence([seed % 2**64, step, rank]).generate_state(2)
    torch.manual_seed(int(first) << 32 | int(second))
    np.random.seed(first)
    random.seed(int(first))
