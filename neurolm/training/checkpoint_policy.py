"""When a run saves a checkpoint, where, and how many it keeps."""

import time
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field

from neurolm.config import config


@config
class CheckpointsConfig:
    """Checkpoints to resume from; the weights that a run is for lie apart in its model folder."""

    every_steps: Annotated[int, Field(gt=0)] | None = None
    """Steps between checkpoints; null: with every validation. There is always one at the end."""
    every_minutes: Annotated[float, Field(gt=0)] | None = 10.0
    """Minutes after which a checkpoint is due beside those of ``every_steps``; null: none by the clock."""
    keep: Annotated[int, Field(ge=1)] = 2
    """Newest whole checkpoints that are kept; from 2 on, a damaged one has another before it."""
    storage: str | None = None
    """Folder or URI (``file://``, ``s3://``, ``gs://``) for checkpoints; null: ``checkpoints`` in ``out``. Storage that
    is no folder of this machine keeps the model folder too."""


@config
class ResumeConfig:
    """What a run that is started again under its id may differ in from what it was; by itself in nothing."""

    allow_changed: tuple[Literal["config", "data", "tokenizer", "pretrained model"], ...] = ()
    """Of config, data, tokenizer, pretrained model: what may have changed. A change that is used goes on record."""


class CheckpointClock:
    """Says when minutes have passed since the last checkpoint. The first worker's clock counts for all of them."""

    def __init__(self, every_minutes: float | None, now_s: Callable[[], float] = time.monotonic) -> None:
        self._every_s = None if every_minutes is None else 60 * every_minutes
        self._now_s = now_s
        self._saved_at_s = now_s()

    def is_due(self) -> bool:
        """Whether a checkpoint should be saved now."""
        return self._every_s is not None and self._now_s() - self._saved_at_s >= self._every_s

    def saved(self) -> None:
        """A checkpoint was saved."""
        self._saved_at_s = self._now_s()
