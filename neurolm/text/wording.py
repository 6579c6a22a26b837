"""In which words a window is asked: drawn in training, every option in every place at evaluation.

What is drawn is a function of the run's seed, the step, the window's place in the global batch and the task's name. So
a run that resumes, on any number of workers, asks what it would have asked, and a window that a training epoch has
twice is asked twice.
"""

import itertools
import math
import zlib
from collections.abc import Iterator

import numpy as np

from neurolm.text.instructions import EncodedTask
from neurolm.text.task import Task, Wording

KEPT_WORDINGS = 4096
"""Wordings whose ids are kept in memory."""


class WordingDraw:
    """Puts a run's tasks into words for every window of every step."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._encoded: dict[tuple[str, Wording], EncodedTask] = {}

    def __call__(self, step: int, place: int, task: EncodedTask) -> EncodedTask:
        """The task as the window at a place of a step's global batch is asked; itself where it never varies."""
        if not task.task.varies:
            return task
        drawn = task.name, drawn_wording(task.task, self._seed, step, place)
        if drawn not in self._encoded:
            if len(self._encoded) == KEPT_WORDINGS:
                self._encoded.clear()
            self._encoded[drawn] = task.worded(drawn[1])
        return self._encoded[drawn]


def drawn_wording(task: Task, seed: int, step: int, place: int) -> Wording:
    """One of the task's questions, and an order of its options where they are shuffled."""
    rng = np.random.default_rng([seed % 2**64, step, place, zlib.crc32(task.name.encode())])
    question = int(rng.integers(len(task.questions)))
    order = tuple(rng.permutation(len(task.answers)).tolist()) if task.shuffle_options else None
    return Wording(question, order)


def option_orders_of(task: Task, number: int) -> list[Wording]:
    """So many orders of a lettered task's options, the task's own first, or as many as there are.

    Orders come as rotations of one another: among the first as many as there are options every option stands once in
    every place, so that a liking for a letter cancels out. Then come the rotations of another order, drawn by the
    task's name. A task that lists no options has one wording.
    """
    if not task.lettered:
        return [Wording()]
    number = min(number, math.factorial(len(task.answers)))
    rest = itertools.islice(_rotations(task), 1, number)
    return [Wording(), *(Wording(order=order) for order in rest)]


def _rotations(task: Task) -> Iterator[tuple[int, ...]]:
    """All orders of the options, each once."""
    size = len(task.answers)
    rng = np.random.default_rng(zlib.crc32(task.name.encode()))
    order, seen = tuple(range(size)), set[tuple[int, ...]]()
    while True:
        for start in range(size):
            yield order[start:] + order[:start]
        seen.add(_from_first(order))
        while _from_first(order) in seen:
            order = tuple(rng.permutation(size).tolist())


def _from_first(order: tuple[int, ...]) -> tuple[int, ...]:
    """The rotation of an order that begins with class 0; equal for all its rotations."""
    start = order.index(0)
    return order[start:] + order[:start]
