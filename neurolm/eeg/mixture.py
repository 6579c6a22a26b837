"""How often each data set is seen: shares of the windows of a training epoch."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, model_validator

from neurolm.config import ConfigError, config


@config
class MixtureConfig:
    """Shares of the data sets; left as it is, every window is seen once in a training epoch."""

    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Share of every data set, in any unit: {tuab: 2, hmc: 1}; all data sets of the run are named, or none."""
    temperature: Annotated[float, Field(ge=1)] = 1.0
    """Shares go with number of windows to the power of 1/temperature: 1 is proportional, large values are even."""

    @model_validator(mode="after")
    def _one_rule(self) -> "MixtureConfig":
        if self.weights and self.temperature != 1:
            raise ValueError("weights and temperature are two rules for the same shares; set one of them")
        return self

    @property
    def is_proportional(self) -> bool:
        """Whether every window is seen equally often."""
        return not self.weights and self.temperature == 1

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
