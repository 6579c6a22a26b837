"""The stream of training steps: which windows and which text, cut for this worker and into micro-batches.

Windows arrive as `StepWindows`, from the store by index (`neurolm.eeg.reading`) or from Ray Data; both follow the order
that `neurolm.eeg.order.GlobalOrder` computes, so a run reads the same windows at a step on any number of workers.
"""

import functools
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from neurolm.config import config
from neurolm.eeg.order import worker_slice
from neurolm.eeg.reading import StepWindows
from neurolm.eeg.shards import StoredWindow
from neurolm.sequences import Batch, Worded, collate
from neurolm.text.corpus import TextCorpus
from neurolm.text.instructions import EncodedTask
from neurolm.text.wording import WordingDraw


@config
class BatchConfig:
    """Sizes of one optimizer step, over all workers together."""

    size: Annotated[int, Field(gt=0)]
    """Windows in a global batch."""
    text_size: Annotated[int, Field(ge=0)] = 0
    """Text crops in a global batch; 0 trains without text."""
    text_ratio: Annotated[float, Field(ge=0)] | None = None
    """Text crops for each window instead, rounded: with ``size`` 64, 0.25 is 16 crops; null: ``text_size`` says."""
    text_length: Annotated[int, Field(gt=1)] = 1024
    """Byte-pair tokens in a text crop."""
    micro_size: Annotated[int, Field(gt=0)] | None = None
    """Most windows in one forward pass of a worker; null: the whole share. Accumulation follows from it."""

    @model_validator(mode="after")
    def _one_rule(self) -> "BatchConfig":
        if self.text_ratio is not None and self.text_size:
            raise ValueError("text_size and text_ratio are two rules for the same number; set text_size to 0")
        return self

    @property
    def num_crops(self) -> int:
        """Text crops in a global batch."""
        return self.text_size if self.text_ratio is None else round(self.text_ratio * self.size)


@dataclass(frozen=True)
class StepBatch:
    """One worker's micro-batches of one step and the element counts that its losses divide by."""

    step: int
    micro_batches: tuple[Batch, ...]
    counts: dict[str, int]
    num_windows: int
    windows: Sequence[StoredWindow] = ()
    """The windows that the micro-batches were made of."""
    places: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """Their places in the global batch."""
    tasks: Mapping[str, EncodedTask] | None = None
    worded: Worded | None = None
    """How the windows are asked; None: in the tasks' own words."""

    def alone(self, number: int) -> Batch:
        """A batch of one of the windows, without text."""
        chosen = slice(number, number + 1)
        return collate(self.windows[chosen], self.places[chosen], text=None, tasks=self.tasks, worded=self.worded)

    @property
    def window_digest(self) -> int:
        """Which windows stand at which places: a sum of 32-bit numbers, exact in float64 for two million windows.

        Workers' digests add up to the global batch's.
        """
        return sum(
            zlib.crc32(f"{place}/{window.data_set}/{window.recording}/{window.start_s}".encode())
            for place, window in zip(self.places.tolist(), self.windows, strict=True)
        )


class Batcher:
    """Turns a worker's windows of a step into micro-batches, adding its share of the step's text."""

    def __init__(
        self,
        sizes: BatchConfig,
        *,
        corpus: TextCorpus | None,
        tasks: Mapping[str, EncodedTask] | None,
        seed: int,
        strata: tuple[str, ...] = (),
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._sizes = sizes
        self._corpus = corpus if sizes.num_crops else None
        self._tasks = tasks
        self._wordings = WordingDraw(seed)
        self._seed = seed
        self._strata = strata
        self._rank = rank
        self._world_size = world_size

    @property
    def num_micro_batches(self) -> int:
        """Forward passes a step; the same on every worker."""
        share = math.ceil(self._sizes.size / self._world_size)
        return math.ceil(share / (self._sizes.micro_size or share))

    def __call__(self, part: StepWindows) -> StepBatch:
        """Collate one step."""
        number = self.num_micro_batches
        texts: Sequence[np.ndarray | None] = [None] * number
        if self._corpus is not None:
            text = self._corpus.batch(part.step, self._sizes.num_crops, self._sizes.text_length, self._seed)
            texts = np.array_split(worker_slice(text, self._rank, self._world_size), number)
        worded = functools.partial(self._wordings, part.step)
        places = np.array_split(np.arange(len(part.windows)), number)
        batches = tuple(
            collate(
                [part.windows[i] for i in chosen],
                part.places[chosen],
                text=piece,
                tasks=self._tasks,
                strata=self._strata,
                worded=worded,
            )
            for chosen, piece in zip(places, texts, strict=True)
        )
        counts: dict[str, int] = {}
        for batch in batches:
            for name, count in batch.counts.items():
                counts[name] = counts.get(name, 0) + count
        return StepBatch(part.step, batches, counts, len(part.windows), part.windows, part.places, self._tasks, worded)
