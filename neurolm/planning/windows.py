"""Which windows a run will read and how many: from its store, or, before there is one, from the data sets' layouts."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from neurolm.config import UserError
from neurolm.datasets import LAYOUTS
from neurolm.eeg.manifest import MANIFEST
from neurolm.eeg.shards import Store
from neurolm.planning.trace import WindowShape
from neurolm.sequences import PATCH_POINTS
from neurolm.text.instructions import chosen_tasks
from neurolm.training.assembly import reading_plan
from neurolm.training.runs import InstructRun
from neurolm.training.training_run import TrainingRun

_SHAPE = re.compile(r"(\d+)x(\d+)")


@dataclass(frozen=True)
class PlannedWindows:
    """The training windows of a run."""

    shares: dict[WindowShape, float]
    """How often each shape occurs among the windows; with several tasks on a data set, more than 1 in all."""
    num_windows: int | None
    """Training windows; None where there is no store and nobody said."""
    source: str

    @property
    def largest(self) -> WindowShape:
        """The shape of most tokens: what memory is planned for."""
        return max(self.shares, key=lambda shape: (shape.num_tokens, str(shape.task)))

    @property
    def hours(self) -> float | None:
        """Hours of EEG in the training windows; overlapping windows count in full."""
        if self.num_windows is None:
            return None
        seconds = sum(share * shape.num_seconds for shape, share in self.shares.items()) / sum(self.shares.values())
        return self.num_windows * seconds / 3600


def planned_windows(run: TrainingRun, num_windows: int | None, shapes: str | None) -> PlannedWindows:
    """The windows of a run; ``num_windows`` and ``shapes`` (``64x16,19x4``, channels x seconds) replace what is found.

    Raises:
        UserError: a shape cannot be read, or no data set says what shape its windows have.
    """
    if shapes is not None:
        found = _given(shapes)
        tasks = chosen_tasks(run.tasks, run.own_tasks)[0].name if isinstance(run, InstructRun) else None
        shares = {WindowShape(*shape, tasks): 1 / len(found) for shape in found}
        return PlannedWindows(shares, num_windows, "--shape")
    if (run.training_store / MANIFEST).is_file():
        return _stored(run, num_windows)
    return _declared(run, num_windows)


def _given(shapes: str) -> list[tuple[int, int]]:
    matches = [_SHAPE.fullmatch(shape.strip()) for shape in shapes.split(",")]
    found = [(int(match[1]), int(match[2])) for match in matches if match]
    if len(found) < len(matches) or not all(channels and seconds for channels, seconds in found):
        raise UserError(f"--shape {shapes!r}: expected channels x seconds such as 64x16, several with commas between")
    return found


def _stored(run: TrainingRun, num_windows: int | None) -> PlannedWindows:
    plan = reading_plan(run)
    index = plan.chosen(Store.open(plan.store).index("train", plan.data_sets), "train")
    if not len(index):
        raise UserError(f"{plan.store}: no training windows of this run's data sets; preprocess those recordings")
    counts: Counter[WindowShape] = Counter()
    for channels, times, data_set in zip(index.num_channels, index.num_times, index.data_set, strict=True):
        for task in _asked(run, str(data_set)):
            counts[WindowShape(int(channels), int(times) // PATCH_POINTS, task)] += 1
    shares = {shape: count / len(index) for shape, count in counts.items()}
    return PlannedWindows(shares, num_windows or len(index), str(plan.store))


def _declared(run: TrainingRun, num_windows: int | None) -> PlannedWindows:
    """Before there is a store: equally many windows of every data set that the run reads.

    A run that names no recordings at all is planned for pre-training on EEGMMIDB's layout, as the files for the paper's
    models are meant to be run.
    """
    is_downstream = isinstance(run, InstructRun) or (run.training_store == run.store and run.data.root is not None)
    if not is_downstream:
        layout = LAYOUTS["motor_imagery"]
        shape = WindowShape(len(layout.channels), int(run.data.pretraining_window_s or 1024 // len(layout.channels)))
        return PlannedWindows({shape: 1.0}, num_windows, "no recordings are named: EEGMMIDB's layout")
    wanted = (
        {task.data_set for task in chosen_tasks(run.tasks, run.own_tasks)}
        if isinstance(run, InstructRun)
        else run.data.sets
    )
    shares: dict[WindowShape, float] = {}
    names = [name for name in run.data.sets if name in wanted]
    for name in names:
        layout = LAYOUTS[run.data.sets[name].layout]
        for task in _asked(run, name):
            window_s = getattr(layout, "window_s", None)
            if window_s is None:
                raise UserError(f"data set {name}: its layout does not say how long windows are; give --shape")
            shares[WindowShape(len(layout.channels), int(window_s), task)] = 1 / len(names)
    if not shares:
        raise UserError(f"no data set among {', '.join(run.data.sets)} belongs to this run; add it, or give --shape")
    return PlannedWindows(shares, num_windows, f"no store yet: the layouts of {', '.join(names)}")


def _asked(run: TrainingRun, data_set: str) -> Sequence[str | None]:
    """The tasks that a window of a data set is asked; [None] outside stage 3."""
    if not isinstance(run, InstructRun):
        return [None]
    return [task.name for task in chosen_tasks(run.tasks, run.own_tasks) if task.data_set == data_set]
