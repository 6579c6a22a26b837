"""A loss or a gradient that is not finite: where it came from, and whether the run stops or goes on without the batch.

Either way no weight has changed: the loop and the engines look before the optimizer step. To name what is at fault each
worker passes the windows of its batch one by one through the stage, without gradients, and all of them together know.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from neurolm.config import config
from neurolm.eeg.shards import StoredWindow
from neurolm.sequences import Batch
from neurolm.tracking import Tracker
from neurolm.training.batches import StepBatch
from neurolm.training.context import RunContext
from neurolm.training.engine import DivergedError, Engine
from neurolm.training.stage import Stage

logger = logging.getLogger(__name__)

FILE_NAME = "not_finite.jsonl"
"""Every such step of a run with all its windows, in the run's folder."""
MOST_NAMED = 10
"""Windows that a message names; the file has all."""


@config
class NotFiniteConfig:
    """What happens where a loss or a gradient is not finite."""

    policy: Literal["stop", "skip"] = "stop"
    """stop before the optimizer step, or skip: go on without the batch."""
    max_skipped: Annotated[int, Field(ge=0)] = 10
    """Batches of a whole run that ``skip`` may leave out; at the next one it stops."""


class RollBack(RuntimeError):
    """The weights are not finite: the run starts again from its last checkpoint, without the step that broke them."""


@dataclass(frozen=True)
class Blame:
    """What of a batch has a loss that is not finite, over all workers."""

    windows: list[dict[str, Any]]
    """All windows of the batch in order: data_set, recording, start_s, is_suspect, and whether its signal is finite."""
    text_is_suspect: bool
    """Whether a crop of text alone has such a loss."""

    def __str__(self) -> str:
        suspects = [window for window in self.windows if window["is_suspect"]]
        text = "the loss of its text is not finite" if self.text_is_suspect else ""
        if suspects:
            said = f"the loss of {len(suspects)} of its {len(self.windows)} windows is not finite: {_listed(suspects)}"
            return f"{said}; {text}" if text else said
        said = text or "no window has such a loss by itself"
        return f"{said}; its windows were {_listed(self.windows)}"


class NotFiniteGuard:
    """Decides at each such step, equally on all workers, and keeps the account of what was left out."""

    def __init__(
        self,
        settings: NotFiniteConfig,
        stage: Stage,
        engine: Engine,
        context: RunContext,
        tracker: Tracker,
        folder: Path,
        skipped: Sequence[dict[str, Any]] = (),
    ) -> None:
        """``skipped`` are the steps that the run has left out before it was resumed."""
        self._settings, self._stage, self._engine = settings, stage, engine
        self._context, self._tracker, self._folder = context, tracker, folder
        self._account = folder / "left_out.json"
        planned = json.loads(self._account.read_text()) if self._account.is_file() else []
        self._to_leave_out = {int(entry["step"]): entry for entry in planned}
        self.skipped = [*skipped]

    def leaves_out(self, step: int) -> bool:
        """Whether a step is passed over because its update broke the weights before the run was rolled back."""
        if step not in self._to_leave_out:
            return False
        self._note(self._to_leave_out[step])
        return True

    def handle(self, error: DivergedError, batch: StepBatch) -> dict[str, float]:
        """Name the batch; leave it out, or stop. Returns metrics of the step. Raises DivergedError, RollBack."""
        self._stage.drop_step()
        if not weights_are_finite(self._stage, self._context):
            self.refuse_broken_weights(batch.step - 1)
        blame = find_blame(self._stage, self._engine, batch, self._context)
        goes_on = self._may_leave_out()
        self._record(error, batch.step, blame, "skipped" if goes_on else "stopped")
        if not goes_on:
            raise DivergedError(f"{error}; no weight was changed. Of the batch, {blame}. {self._advice()}") from error
        logger.warning("%s; the batch is left out. Of it, %s", error, blame)
        self._note({"step": batch.step, "reason": str(error)})
        self._engine.step_count += 1
        return {"skipped_steps": float(len(self.skipped))}

    def refuse_broken_weights_at(self, completed: int) -> None:
        """Look at all weights before they are saved, after so many steps. Raises DivergedError, RollBack."""
        if not weights_are_finite(self._stage, self._context):
            self.refuse_broken_weights(completed - 1)

    def refuse_broken_weights(self, step: int) -> None:
        """Where the update of ``step`` has made weights that are not finite: go back, or stop.

        Raises:
            RollBack: with policy skip; the step will be left out.
            DivergedError: with policy stop, or where too many batches were left out.
        """
        said = f"step {step}: its update made weights that are not finite"
        if self._may_leave_out() and step >= 0:
            if self._context.rank == 0:
                entries = [*self._to_leave_out.values(), {"step": step, "reason": said}]
                self._account.write_text(json.dumps(entries, indent=1))
            self._context.all_gather_object(None)  # nobody leaves before it is written
            raise RollBack(f"{said}; the run goes back to its last checkpoint and leaves the step out")
        raise DivergedError(f"{said}; they were not saved. {self._advice()}")

    def _may_leave_out(self) -> bool:
        left_out = {entry["step"] for entry in self.skipped} | set(self._to_leave_out)
        return self._settings.policy == "skip" and len(left_out) < self._settings.max_skipped

    def _note(self, entry: dict[str, Any]) -> None:
        self.skipped.append(entry)
        self._tracker.tags({"skipped_steps": ", ".join(str(one["step"]) for one in self.skipped)})

    def _advice(self) -> str:
        lower = "Lower optimizer.learning_rate, or look for extreme windows with `neurolm check`"
        if self._settings.policy == "stop":
            return f"{lower}; with not_finite.policy=skip a run goes on without such batches"
        return f"{lower}: {len(self.skipped)} batches were left out before (not_finite.max_skipped)"

    def _record(self, error: DivergedError, step: int, blame: Blame, done: str) -> None:
        if self._context.rank != 0:
            return
        entry = {"step": step, "reason": str(error), "done": done, "text_is_suspect": blame.text_is_suspect}
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / FILE_NAME).open("a") as file:
            file.write(json.dumps(entry | {"windows": blame.windows}) + "\n")
        self._tracker.tags({"not_finite": f"{error}; {done}. Of the batch, {blame}"})


def find_blame(stage: Stage, engine: Engine, batch: StepBatch, context: RunContext) -> Blame:
    """Look for the windows, and the text, whose loss is not finite by themselves; every worker must call it."""
    texts = [Batch(groups=(), text=one.text) for one in batch.micro_batches if one.text is not None]
    alone = [batch.alone(number) for number in range(len(batch.windows))]
    longest = max(context.all_gather_object(len(alone)))
    # ZeRO-3 gathers weights as they are used: every worker must use them as often.
    probes = [*texts, *alone, *[*alone[:1], Batch(groups=())][:1] * (longest - len(alone))]
    ones = dict.fromkeys(batch.counts, 1.0)
    stage.eval()
    with torch.no_grad():
        is_finite = [bool(torch.isfinite(engine(one.to(context.device), ones)["loss"])) for one in probes]
    stage.settle()
    stage.train()
    of_windows = is_finite[len(texts) : len(texts) + len(alone)]
    mine = [_described(*one) for one in zip(batch.places.tolist(), batch.windows, of_windows, strict=True)]
    gathered = context.all_gather_object((mine, not all(is_finite[: len(texts)])))
    windows = sorted((one for part, _ in gathered for one in part), key=lambda one: int(one["place"]))
    return Blame(windows, any(text for _, text in gathered))


@torch.no_grad()
def weights_are_finite(module: nn.Module, context: RunContext) -> bool:
    """Whether all parameters and buffers of all workers are finite; where ZeRO divides one, each looks at its part."""
    broken = torch.zeros((), dtype=torch.float64, device=context.device)
    for tensor in _tensors(module):
        if tensor.is_floating_point():
            broken += (~torch.isfinite(tensor)).any().double()
    return not context.all_reduce_sum(broken).item()


def _tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    for tensor in chain(module.parameters(), module.buffers()):
        yield getattr(tensor, "ds_tensor", tensor)


def _described(place: int, window: StoredWindow, is_finite: bool) -> dict[str, Any]:
    return {
        "place": place,
        "data_set": window.data_set,
        "recording": window.recording,
        "start_s": float(window.start_s),
        "is_suspect": not is_finite,
        "signal_is_finite": bool(np.isfinite(window.signal).all()),
    }


def _listed(windows: Sequence[dict[str, Any]]) -> str:
    named = [
        f"recording {one['recording']} of {one['data_set']} at {one['start_s']:g} s"
        + ("" if one["signal_is_finite"] else " (its signal is not finite)")
        for one in windows[:MOST_NAMED]
    ]
    more = [f"{len(windows) - MOST_NAMED} more in {FILE_NAME}"] if len(windows) > MOST_NAMED else []
    return ", ".join([*named, *more]) or "none"
