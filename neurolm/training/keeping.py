"""Which weights of instruction tuning are kept, by validation: the best, the last, or the best by ranks of tasks.

Tasks peak at different steps. The mean of their scores is ruled by the task whose score moves most; ranks count every
task alike: a validation's rank is its place among all validations of the run, averaged over tasks. The best by ranks
may turn out late to be an earlier one, so the weights of every validation are kept that no other beats in all tasks
(the Pareto front): only such can ever be it.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from neurolm.training.checkpoint import copy_model

Keep = Literal["best", "final", "ranks"]
"""The best mean over tasks; the last validation; the best mean rank over tasks."""
FRONT = "pareto"
"""Folder of a run with the model folders of the Pareto front."""
RECORD = "validations.json"
"""File of a run that says when which task was how good."""


def pareto_front(scores: NDArray[np.float64]) -> list[int]:
    """Rows of ``[validations tasks]`` that no other beats: nowhere worse, somewhere better. Of equals, the first."""
    no_worse = (scores[:, None] >= scores[None]).all(axis=2)
    better = (scores[:, None] > scores[None]).any(axis=2)
    earlier = np.arange(len(scores))[:, None] < np.arange(len(scores))[None]
    beaten = (no_worse & (better | earlier)).any(axis=0)
    return np.flatnonzero(~beaten).tolist()


def mean_ranks(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over tasks of each row's rank among ``[validations tasks]``: 1 is the best, equals share theirs."""
    ranks: NDArray[np.float64] = rankdata(-scores, axis=0)
    return ranks.mean(axis=1)


class Keeper:
    """Remembers a run's validations and decides. Every worker has one, they all agree, and the first moves folders."""

    def __init__(
        self, folder: Path, keep: Keep, patience: int | None, tasks: Sequence[str], best: dict[str, float]
    ) -> None:
        self.validations: list[dict[str, Any]] = []
        """``step``, ``scores`` (task to score) and ``metrics`` of every validation, in order."""
        self._folder = folder
        self._keep = keep
        self._patience = patience
        self._tasks = tuple(tasks)
        self._best = best
        self._rows: list[int] = []  # the validations whose weights lie in the folder of the front
        self._is_new = False

    def resume(self, validations: Sequence[dict[str, Any]]) -> None:
        """Go on from the validations that a checkpoint knows of; weights that were lost with a machine do not count."""
        self.validations[:] = validations
        kept = [(self.place(one["step"]) / "manifest.json").is_file() for one in validations]
        self._rows = np.flatnonzero(kept).tolist() if self._keep == "ranks" else []

    def hears(self, step: int, metrics: Mapping[str, float], scores: Mapping[str, float]) -> bool:
        """Take a validation in; returns whether its weights are wanted."""
        metrics = {**metrics, "step": float(step)}
        self.validations.append({"step": step, "scores": dict(scores), "metrics": metrics})
        latest = len(self.validations) - 1
        if self._keep == "ranks":
            rows = [*self._rows, latest]
            self._rows = [rows[place] for place in pareto_front(self._table()[rows])]
            return latest in self._rows
        self._is_new = self._keep == "final" or not self._best or metrics["score"] > self._best["score"]
        if self._is_new:
            self._choose(latest)
        return self._is_new

    def place(self, step: int) -> Path:
        """The model folder that wanted weights are written to."""
        return self._folder / FRONT / f"step-{step:08d}" if self._keep == "ranks" else self._folder / "model"

    def settle(self, is_first: bool) -> bool:
        """After every validation, and after wanted weights were written: whether the run's model folder has others now.

        By ranks, the first worker makes the best of the front the run's model and removes what is no longer on it. A
        validation that is not on the front may move the ranks of those that are.
        """
        if self._keep != "ranks":
            return self._is_new
        ranks = mean_ranks(self._table())
        chosen = min(self._rows, key=lambda row: (ranks[row], row))
        is_new = self._best.get("step") != self.validations[chosen]["step"]
        self._choose(chosen)
        if is_first:
            if is_new:
                copy_model(self.place(self.validations[chosen]["step"]), self._folder / "model")
            on_front = {self.place(self.validations[row]["step"]) for row in self._rows}
            for folder in set((self._folder / FRONT).glob("step-*")) - on_front:
                shutil.rmtree(folder)
        return is_new

    def write(self) -> None:
        """Put down when which task was how good, its mean rank, and what was kept: ``validations.json`` of the run."""
        ranks = mean_ranks(self._table())
        front = self._rows if self._keep == "ranks" else pareto_front(self._table())
        told = [
            {"step": one["step"], "scores": one["scores"], "mean_rank": float(rank)}
            | {"is_on_front": row in front, "is_kept": one["step"] == self._best["step"]}
            for row, (one, rank) in enumerate(zip(self.validations, ranks, strict=True))
        ]
        (self._folder / RECORD).write_text(json.dumps(told, indent=1))

    @property
    def is_over(self) -> bool:
        """Whether so many validations have passed without a better one that the run should end."""
        since = sum(one["step"] > self._best["step"] for one in self.validations) if self._best else 0
        return self._patience is not None and since >= self._patience

    def _table(self) -> NDArray[np.float64]:
        return np.array([[one["scores"][task] for task in self._tasks] for one in self.validations])

    def _choose(self, row: int) -> None:
        self._best.clear()
        self._best.update(self.validations[row]["metrics"])
