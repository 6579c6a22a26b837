"""Windows and text become typed batches: groups of windows of one shape, nothing padded.

A window of ``C`` channels and ``S`` seconds is ``C x S`` tokens of 200 time points in time-major order (all channels of
second 0, then of second 1), in units of 100 µV. Windows that differ in channels, seconds or task are in different
groups of the same batch. No batch holds a mask: masks follow from the time indices (`neurolm.models.masks`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from neurolm.config import UserError
from neurolm.eeg.shards import StoredWindow
from neurolm.models.neurolm import NeuroLM
from neurolm.text.instructions import EncodedTask

MICROVOLT_SCALE = 100.0
"""Signals are divided by this before they reach a model; source: released code."""

PATCH_POINTS = 200
"""Time points of one token: one second at 200 Hz."""

T = TypeVar("T", "EEGTokens", "AnswerTexts", "WindowGroup", "Batch")

Worded = Callable[[int, EncodedTask], EncodedTask]
"""Puts a task into the words in which the window at a place of the global batch is asked."""


class WindowError(UserError):
    """A window that cannot be made into tokens or asked a task; the message names its recording."""


@dataclass(frozen=True)
class EEGTokens:
    """What a frozen neural tokenizer makes of windows, computed once and kept."""

    features: Float[Tensor, "windows tokens hidden"]
    """Vectors that the language model reads, in fp32 or bf16."""
    codes: Int64[Tensor, "windows tokens"]
    """Rows of the codebook that pre-training predicts."""

    def to(self, device: torch.device | str) -> "EEGTokens":
        """The tokens on another device."""
        return _to(self, device)


@dataclass(frozen=True)
class AnswerTexts:
    """Prompts of one length with their answers; shorter texts go on with ends of text, without loss."""

    ids: Int64[Tensor, "texts length"]
    is_target: Bool[Tensor, "texts length"]
    num_prompt: int
    """Ids before the answer, the same for every text."""
    first_ids: Int64[Tensor, "texts classes"]
    """First id of the answer of every class of the task, as the text words it."""

    @classmethod
    def of(cls, asked: Sequence[tuple[EncodedTask, int]]) -> "AnswerTexts":
        """The texts of tasks and classes, which may be one task in different words; as long as any class's could be."""
        task = asked[0][0]
        longest = max(len(answer) for one, _ in asked for answer in one.answers)
        shape = len(asked), len(task.prompt_ids) + longest + len(task.code.answer_end)
        ids, is_target = torch.full(shape, task.code.end_of_text), torch.zeros(shape, dtype=torch.bool)
        for row, (one, class_index) in enumerate(asked):
            text = one.training_text(class_index)
            ids[row, : len(text.ids)] = torch.tensor(text.ids)
            is_target[row, : len(text.ids)] = torch.tensor(text.is_target)
        first_ids = torch.tensor([[answer[0] for answer in one.answers] for one, _ in asked])
        return cls(ids, is_target, len(task.prompt_ids), first_ids)

    @classmethod
    def of_classes(cls, task: EncodedTask) -> "AnswerTexts":
        """The text of every class of a task."""
        return cls.of([(task, class_index) for class_index in range(len(task.labels))])

    def rows(self, places: Int64[Tensor, " rows"]) -> "AnswerTexts":
        """Some of the texts, on the device of their places."""
        moved = self.to(places.device)
        return replace(
            moved, ids=moved.ids[places], is_target=moved.is_target[places], first_ids=moved.first_ids[places]
        )

    def to(self, device: torch.device | str) -> "AnswerTexts":
        """The texts on another device."""
        return _to(self, device)


@dataclass(frozen=True)
class WindowGroup:
    """Windows of equal channels and seconds and, where tasks are asked, of one task and one length of its prompt."""

    signal: Float32[Tensor, "windows tokens 200"]
    """Patches in units of 100 µV; of no token where ``tokens`` stand for them."""
    channel_index: Int64[Tensor, "windows tokens"]
    """Row of the channel vocabulary of each token."""
    time_index: Int64[Tensor, " tokens"]
    """Second of each token, the same for every window of the group."""
    position: Int64[Tensor, " windows"]
    """Place of each window in the global batch."""
    num_channels: int
    num_seconds: int
    task: str | None = None
    """Name of the task that is asked."""
    label: Int64[Tensor, " windows"] | None = None
    """Class of each window among the task's answers."""
    texts: AnswerTexts | None = None
    """What each window is asked and should answer; None: what the task asks of its class in its own words."""
    num_answer_targets: int = 0
    """Text tokens of the group that carry loss in instruction tuning."""
    tokens: EEGTokens | None = None
    """The frozen tokenizer's output, where it was computed before."""
    stratum: Int64[Tensor, " windows"] | None = None
    """Place of each window's data set, or of its task where tasks are asked, among the batch's ``strata``."""
    windows_by_stratum: tuple[int, ...] = ()
    """How many windows each of the strata has in the group."""

    def __len__(self) -> int:
        return len(self.position)

    @property
    def time_indices(self) -> Int64[Tensor, "windows tokens"]:
        """The time index repeated for every window, without a copy."""
        return self.time_index.expand(len(self), -1)

    def window(self, row: int) -> "WindowGroup":
        """One window of a group that is asked nothing and has no tokens, as a group."""
        assert self.task is None and self.tokens is None
        one = slice(row, row + 1)
        return replace(
            self, signal=self.signal[one], channel_index=self.channel_index[one], position=self.position[one]
        )

    def to(self, device: torch.device | str) -> "WindowGroup":
        """The group on another device."""
        return replace(
            _to(self, device),
            tokens=None if self.tokens is None else self.tokens.to(device),
            texts=None if self.texts is None else self.texts.to(device),
        )


@dataclass(frozen=True)
class Batch:
    """What a stage sees in one forward pass; any part may be empty on a worker with nothing left to do."""

    groups: tuple[WindowGroup, ...]
    text: Int64[Tensor, "crops length_and_one"] | None = None
    """Crops of plain text, each with one id more than is read, so that every id read has a next one."""
    strata: tuple[str, ...] = ()
    """Data sets, or tasks, by which losses are also told; the same on every worker."""

    @property
    def counts(self) -> dict[str, int]:
        """Number of elements that losses are means over; always the same names, so that workers can add them up."""
        whole = {
            "windows": sum(len(group) for group in self.groups),
            "eeg_tokens": sum(group.channel_index.numel() for group in self.groups),
            # Each token but those of the last second has a target: the same channel's code a second later.
            "eeg_targets": sum(len(one) * one.num_channels * (one.num_seconds - 1) for one in self.groups),
            "answer_targets": sum(group.num_answer_targets for group in self.groups),
            "text_tokens": 0 if self.text is None else self.text[:, 1:].numel(),
        }
        return (
            whole
            | {
                f"{name}/{stratum}": sum(one.windows_by_stratum[place] * size(one) for one in self.groups)
                for place, stratum in enumerate(self.strata)
                for name, size in _ELEMENTS_OF_A_WINDOW.items()
            }
            | {
                f"answer_targets/{stratum}": sum(one.num_answer_targets for one in self.groups if one.task == stratum)
                for stratum in self.strata
            }
        )

    def text_start(self, rule: Literal["window", "batch"]) -> int | None:
        """Position of the first text token: one after the longest window; None where each window has its own."""
        return max((group.num_seconds for group in self.groups), default=0) if rule == "batch" else None

    def to(self, device: torch.device | str) -> "Batch":
        """The batch on another device."""
        return replace(_to(self, device), groups=tuple(group.to(device) for group in self.groups))


_ELEMENTS_OF_A_WINDOW: dict[str, Callable[[WindowGroup], int]] = {
    "windows": lambda group: 1,
    "eeg_tokens": lambda group: len(group.time_index),
    "eeg_targets": lambda group: group.num_channels * (group.num_seconds - 1),
}


def collate(
    windows: Sequence[StoredWindow],
    positions: np.ndarray,
    *,
    text: np.ndarray | None,
    tasks: Mapping[str, EncodedTask] | None,
    strata: tuple[str, ...] = (),
    worded: Worded | None = None,
) -> Batch:
    """Group windows by shape, and by task where tasks are given.

    Args:
        windows: stored windows in µV at 200 Hz.
        positions: place of each window in the global batch.
        text: int64 crops of text ``[crops, length + 1]``, or None for a run without text.
        tasks: tasks by name. A window is asked every task of its data set. None: labels are not looked at.
        strata: all data sets, or with ``tasks`` all tasks, if losses are to be told by them.
        worded: puts tasks into other words; None: every window is asked in the tasks' own.

    Raises:
        WindowError: a window is not whole seconds, or no task asks about its data set.
        TaskError: a window's label has no answer in the task.
    """
    members: dict[tuple[int, int, str | None, int], list[tuple[int, EncodedTask | None]]] = {}
    for place, window in enumerate(windows):
        num_channels, num_seconds = _shape(window)
        for name in _tasks_of(window, tasks):
            asked = tasks[name] if tasks and name else None
            if asked is not None and worded is not None:
                asked = worded(int(positions[place]), asked)
            num_prompt = 0 if asked is None else len(asked.prompt_ids)
            members.setdefault((num_channels, num_seconds, name, num_prompt), []).append((place, asked))
    groups = tuple(
        _group(
            [windows[place] for place, _ in chosen],
            positions[[place for place, _ in chosen]],
            tasks[name] if tasks and name else None,
            [asked for _, asked in chosen if asked is not None],
            strata,
        )
        for (_, _, name, _), chosen in members.items()
    )
    crops = None if text is None else torch.from_numpy(np.asarray(text, dtype=np.int64))
    return Batch(groups=groups, text=crops, strata=strata)


def no_windows(task: str | None = None, tokens_size: int | None = None) -> WindowGroup:
    """A group of no windows, asked a task; with ``tokens_size`` as of windows that came with tokens of that width."""
    nothing = torch.zeros(0, 1, dtype=torch.long)
    return WindowGroup(
        signal=torch.zeros(0, 1, PATCH_POINTS),
        channel_index=nothing,
        time_index=torch.zeros(1, dtype=torch.long),
        position=nothing[:, 0],
        num_channels=1,
        num_seconds=1,
        task=task,
        label=None if task is None else nothing[:, 0],
        tokens=None if tokens_size is None else EEGTokens(torch.zeros(0, 1, tokens_size), nothing),
    )


def eeg_features(model: NeuroLM, group: WindowGroup) -> Float[Tensor, "windows tokens hidden"]:
    """Vectors of the group's EEG tokens: those kept with it, else from the model's frozen encoder."""
    if group.tokens is not None:
        return group.tokens.features.float()
    return model.features(group.signal, group.channel_index, group.time_indices, group.num_channels)


def eeg_tokens(model: NeuroLM, group: WindowGroup) -> EEGTokens:
    """Vectors and codes of the group's EEG tokens: those kept with it, else from one pass of the frozen encoder."""
    if group.tokens is not None:
        return group.tokens
    features = eeg_features(model, group)
    return EEGTokens(features, model.codes(features))


def patches(signal: Float32[np.ndarray, "*windows channels times"]) -> Float32[np.ndarray, "*windows tokens 200"]:
    """Cut signals in µV into time-major tokens in units of 100 µV; the number of times is whole seconds."""
    *leading, num_channels, num_times = signal.shape
    seconds = signal.reshape(*leading, num_channels, num_times // PATCH_POINTS, PATCH_POINTS)
    tokens = np.moveaxis(seconds, -3, -2).reshape(*leading, -1, PATCH_POINTS)
    return np.ascontiguousarray(tokens / np.float32(MICROVOLT_SCALE))


def _group(
    windows: Sequence[StoredWindow],
    positions: np.ndarray,
    task: EncodedTask | None,
    asked: Sequence[EncodedTask],
    strata: tuple[str, ...],
) -> WindowGroup:
    """``asked`` is the task as it is asked of each window."""
    num_channels, num_seconds = _shape(windows[0])
    channels = np.stack([np.asarray(window.channel_indices, dtype=np.int64) for window in windows])
    label, num_targets, texts = None, 0, None
    if task is not None:
        classes = [task.class_index(window.label) for window in windows]
        label = torch.tensor(classes)
        pairs = list(zip(asked, classes, strict=True))
        num_targets = sum(sum(one.training_text(place).is_target) for one, place in pairs)
        texts = None if all(one is task for one in asked) else AnswerTexts.of(pairs)
    stratum = [strata.index(window.data_set if task is None else task.name) for window in windows] if strata else []
    return WindowGroup(
        signal=torch.from_numpy(patches(np.stack([np.asarray(window.signal, np.float32) for window in windows]))),
        tokens=_kept_tokens(windows),
        channel_index=torch.from_numpy(np.tile(channels, num_seconds)),
        time_index=torch.arange(num_seconds).repeat_interleave(num_channels),
        position=torch.from_numpy(np.asarray(positions, dtype=np.int64)),
        num_channels=num_channels,
        num_seconds=num_seconds,
        task=None if task is None else task.name,
        label=label,
        texts=texts,
        num_answer_targets=num_targets,
        stratum=torch.tensor(stratum) if strata else None,
        windows_by_stratum=tuple(stratum.count(place) for place in range(len(strata))),
    )


def _kept_tokens(windows: Sequence[StoredWindow]) -> EEGTokens | None:
    """The tokens that came with the windows, which all have them or none."""
    kept = [window.tokens for window in windows if window.tokens is not None]
    if not kept:
        return None
    assert len(kept) == len(windows), "windows with tokens and windows with signals share a group"
    features = torch.from_numpy(np.stack([one.features for one in kept]))
    codes = torch.from_numpy(np.stack([one.codes for one in kept]).astype(np.int64))
    return EEGTokens(features.view(torch.bfloat16) if kept[0].dtype == "bfloat16" else features, codes)


def _shape(window: StoredWindow) -> tuple[int, int]:
    """Channels and seconds of a window."""
    num_channels, num_times = np.shape(window.signal)
    if window.tokens is not None and num_channels:
        num_times = len(window.tokens.codes) * PATCH_POINTS // num_channels
    if num_times == 0 or num_times % PATCH_POINTS:
        raise WindowError(
            f"recording {window.recording} of {window.data_set}, window at {window.start_s} s: {num_times} time points "
            f"are {num_times / PATCH_POINTS} s; expected whole seconds of {PATCH_POINTS}. Cut windows of whole seconds"
        )
    if num_channels != len(window.channel_indices):
        raise WindowError(
            f"recording {window.recording} of {window.data_set}, window at {window.start_s} s: {num_channels} signals "
            f"but {len(window.channel_indices)} channel indices; preprocess the recording again"
        )
    return num_channels, num_times // PATCH_POINTS


def _tasks_of(window: StoredWindow, tasks: Mapping[str, EncodedTask] | None) -> Sequence[str | None]:
    """The tasks that a window is asked: those of its data set, but for those that leave its label out."""
    if tasks is None:
        return [None]
    asked = [name for name, task in tasks.items() if task.task.data_set == window.data_set]
    if not asked:
        raise WindowError(
            f"recording {window.recording}: no task asks about the data set {window.data_set}; the tasks ask about "
            f"{', '.join(sorted({task.task.data_set for task in tasks.values()}))}. Add a task or leave the set out"
        )
    return [name for name in asked if tasks[name].asks(window.data_set, window.label)]


def _to(part: T, device: torch.device | str) -> T:
    values = {one.name: getattr(part, one.name) for one in fields(part)}
    moved: dict[str, Any] = {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)}
    return replace(part, **moved)
