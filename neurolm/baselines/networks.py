"""The single-task networks: how each is built, scaled and, where that was published, how large it is.

All start from random weights, also BIOT and LaBraM, whose published results begin with pretrained ones. Six come from
`braindecode`, with its own settings but for what stands here; the others are in this folder.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from neurolm.baselines.braindecode_models import braindecode_models
from neurolm.baselines.cnn_transformer import CNNTransformer
from neurolm.baselines.ffcl import FFCL
from neurolm.baselines.st_transformer import STTransformer
from neurolm.config import UserError

SAMPLING_RATE_HZ = 200
Scale = Literal["percentile", "100 uV", "deviation"]
"""See `neurolm.baselines.scaling`."""


@dataclass(frozen=True)
class Shape:
    """What a network has to fit."""

    channels: tuple[str, ...]
    """Names in the electrode vocabulary."""
    num_times: int
    """At 200 Hz."""
    num_classes: int


@dataclass(frozen=True)
class Network:
    """One architecture."""

    build: Callable[[Shape], nn.Module]
    """From ``[windows channels times]`` to logits ``[windows classes]``."""
    scale: Scale
    source: str
    """Whose it is, and where the code is from."""
    published_parameters: str | None = None
    """As the LaBraM and NeuroLM papers print it, for their windows."""
    published_start: Literal["random", "pretrained"] = "random"
    """What the published results began with; here it is random weights always."""


def _braindecode(name: str, shape: Shape, **settings: Any) -> nn.Module:
    """A model of braindecode. Raises BraindecodeMissing."""
    network: nn.Module = getattr(braindecode_models(), name)(
        n_chans=len(shape.channels),
        n_times=shape.num_times,
        n_outputs=shape.num_classes,
        sfreq=SAMPLING_RATE_HZ,
        **settings,
    )
    return network


class _QuietBIOT(nn.Module):
    """BIOT, whose Fourier transforms have a rectangular window on purpose, as published; torch warns of that."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, signal: Float[Tensor, "windows channels times"]) -> Float[Tensor, "windows classes"]:
        """Logits."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="A window was not provided")
            logits: Tensor = self.network(signal)
        return logits


class _NamedLabram(nn.Module):
    """LaBraM, which looks positions up by the names of channels."""

    def __init__(self, network: nn.Module, channels: tuple[str, ...]) -> None:
        super().__init__()
        self.network = network
        self.channels = list(channels)

    def forward(self, signal: Float[Tensor, "windows channels times"]) -> Float[Tensor, "windows classes"]:
        """Logits."""
        logits: Tensor = self.network(signal, ch_names=self.channels)
        return logits


def _labram(shape: Shape) -> nn.Module:
    known = {name.upper() for name in braindecode_models().labram.LABRAM_CHANNEL_ORDER}
    if unknown := [name for name in shape.channels if name.upper() not in known]:
        raise UserError(f"baselines: labram has no position for {', '.join(unknown)}; leave labram out of `baselines`")
    return _NamedLabram(_braindecode("Labram", shape, use_mean_pooling=True), shape.channels)


NETWORKS: dict[str, Network] = {
    "eegnet": Network(
        # Both temporal kernels are half a second long, as the paper's rule is for any sampling rate.
        lambda shape: _braindecode(
            "EEGNet", shape, kernel_length=100, depthwise_kernel_length=25, final_layer_with_constraint=True
        ),
        scale="deviation",
        source="Lawhern et al. 2018; braindecode",
    ),
    "eegconformer": Network(
        lambda shape: _braindecode("EEGConformer", shape),
        scale="deviation",
        source="Song et al. 2022; braindecode",
    ),
    "sparcnet": Network(
        lambda shape: _braindecode("SPARCNet", shape),
        scale="percentile",
        source="Jing et al. 2023; braindecode",
        published_parameters="0.79 M",
    ),
    "contrawr": Network(
        lambda shape: _braindecode("ContraWR", shape),
        scale="percentile",
        source="Yang et al. 2021; braindecode",
        published_parameters="1.6 M",
    ),
    "cnn_transformer": Network(
        lambda shape: CNNTransformer(len(shape.channels), shape.num_times, shape.num_classes),
        scale="percentile",
        source="Peh et al. 2022; own code",
        published_parameters="3.2 M",
    ),
    "ffcl": Network(
        lambda shape: FFCL(len(shape.channels), shape.num_times, shape.num_classes),
        scale="percentile",
        source="Li et al. 2022; own code",
        published_parameters="2.4 M",
    ),
    "st_transformer": Network(
        lambda shape: STTransformer(len(shape.channels), shape.num_times, shape.num_classes),
        scale="percentile",
        source="Song et al. 2021; own code",
        published_parameters="3.5 M",
    ),
    "biot": Network(
        lambda shape: _QuietBIOT(_braindecode("BIOT", shape)),
        scale="percentile",
        source="Yang et al. 2023; braindecode",
        published_parameters="3.2 M",
        published_start="pretrained",
    ),
    "labram": Network(
        _labram,
        scale="100 uV",
        source="Jiang et al. 2024; braindecode",
        published_parameters="5.8 M",
        published_start="pretrained",
    ),
}
"""By the names that settings use."""
