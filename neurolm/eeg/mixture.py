"""How often each data set is seen: shares of the windows of a training epoch."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from neurolm.config import ConfigError, config
from neurolm.eeg.shards import WindowIndex


@config
class MixtureConfig:
    """Shares of the data sets; left as it is, every window is seen once in a training epoch."""

    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Share of every data set, in any unit: {tuab: 2, hmc: 1}; all data sets of the run are named, or none.

    In stage 3 a task's name stands for its data set.
    """
    temperature: Annotated[float, Field(ge=1)] = 1.0
    """Shares go with number of windows to the power of 1/temperature: 1 is proportional, large values are even."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Part of the training windows that the run may see, of every class of every data set (paper, section 3.5)."""

    @model_validator(mode="after")
    def _one_rule(self) -> "MixtureConfig":
        if self.weights and self.temperature != 1:
            raise ValueError("weights and temperature are two rules for the same shares; set one of them")
        return self

    @property
    def is_proportional(self) -> bool:
        """Whether every window is seen equally often."""
        return not self.weights and self.temperature == 1

    def by_data_set(self, tasks: Mapping[str, str]) -> "MixtureConfig":
        """Weights of data sets, where tasks are named: a task's name stands for its data set, several add up."""
        weights: dict[str, float] = {}
        for name, weight in self.weights.items():
            data_set = name if name in tasks.values() else tasks.get(name, name)
            weights[data_set] = weights.get(data_set, 0.0) + weight
        return self if weights == self.weights else replace(self, weights=weights)

    def counts(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """How many windows of every data set a training epoch has; together as many as there are windows.

        Rounded down, and the rest by the largest remainder.

        Raises:
            ConfigError: a weight of a data set that is not there, a data set without a weight or without a window.
        """
        if self.weights and set(self.weights) != set(sizes):
            missing, unknown = sorted(set(sizes) - set(self.weights)), sorted(set(self.weights) - set(sizes))
            raise ConfigError(
                f"mixture.weights: found {', '.join(sorted(self.weights))}; expected one weight for each data set that "
                f"the run reads: {', '.join(sorted(sizes))} (missing: {', '.join(missing) or 'none'}; "
                f"not read: {', '.join(unknown) or 'none'})"
            )
        shares = self.weights or {name: size ** (1 / self.temperature) for name, size in sizes.items()}
        total, whole = sum(shares.values()), sum(sizes.values())
        exact = {name: whole * shares[name] / total for name in sorted(sizes)}
        counts = {name: int(value) for name, value in exact.items()}
        by_remainder = sorted(exact, key=lambda name: counts[name] - exact[name])
        for name in by_remainder[: whole - sum(counts.values())]:
            counts[name] += 1
        for name, count in counts.items():
            if count == 0:
                raise ConfigError(f"mixture: data set {name} has no window among the {whole} of a training epoch")
        return counts


@dataclass(frozen=True)
class Readings:
    """How often a run reads the training windows of a data set."""

    num_windows: int
    """Windows that may be read."""
    total: int
    """Readings of the whole run."""
    by_label: int = 0
    """Windows left out because no task asks about their label."""
    by_fraction: int = 0
    """Windows left out by the mixture's fraction."""

    def __str__(self) -> str:
        """In words: of how many windows how many are read how often."""
        times, more = divmod(self.total, max(1, self.num_windows))
        groups = {_times(times): self.num_windows - more, _times(times + 1): more}
        groups |= {"left out by label_map": self.by_label, "left out by mixture.fraction": self.by_fraction}
        told = ", ".join(f"{number} {what}" for what, number in groups.items() if number)
        return f"{self.num_windows + self.by_label + self.by_fraction} windows: {told}"


def data_set_sizes(index: WindowIndex) -> dict[str, int]:
    """Windows of every data set of an index, in the order of their names."""
    names, counts = np.unique(index.data_set.astype(str), return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def part_of(index: WindowIndex, fraction: float, seed: int) -> WindowIndex:
    """A part of the windows of every class of every data set, at least one; all of it for 1.

    It is a function of the windows and the seed, and a smaller part is within a larger one.
    """
    if fraction == 1:
        return index
    kinds = np.array([f"{name}/{label}" for name, label in zip(index.data_set, index.label, strict=True)])
    chosen = []
    for kind in np.unique(kinds).tolist():
        members = np.flatnonzero(kinds == kind)
        order = np.random.default_rng([seed % 2**64, zlib.crc32(kind.encode())]).permutation(members)
        chosen.append(order[: max(1, round(fraction * len(members)))])
    return index.take(np.sort(np.concatenate(chosen)))


def _times(often: int) -> str:
    return {0: "never read", 1: "read once"}.get(often, f"read {often} times")
