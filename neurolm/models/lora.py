"""Low-rank adapters (LoRA) of a language model's blocks, through the optional package ``peft``.

What the pretrained model brought is frozen; adapters of its linear layers learn in its place. What is new learns as a
whole: the head, the row of [SEP], and in `NeuroLM` the projection, the channel embedding and gains. Of the head all
rows learn, not the codes' alone: text and codes share one softmax, so text's scores must be free to give way to them.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from neurolm.config import UserError, config


@config
class LoraConfig:
    """Adapters W + alpha / rank * B A, with B = 0 at the start."""

    rank: int = Field(default=8, ge=1)
    """Rows of A and columns of B."""
    alpha: float = Field(default=16.0, gt=0)
    """Scale of the adapters, divided by the rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout of what A reads."""
    target_modules: tuple[str, ...] | None = None
    """Names of the layers that get adapters, such as ``q_proj``; null: every linear layer."""


def add_adapters(base: nn.Module, settings: LoraConfig) -> None:
    """Freeze a model of ``transformers`` and put adapters into its linear layers, in place.

    Raises:
        UserError: ``peft`` is not installed, or no layer has a name in ``target_modules``.
    """
    from transformers.pytorch_utils import Conv1D

    try:
        import peft
    except ImportError as error:
        raise UserError(
            f"lora needs the package peft ({error}): pip install 'neurolm[lora]', or set lora to null"
        ) from error
    adapters = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules="all-linear" if settings.target_modules is None else list(settings.target_modules),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in base.modules()),  # GPT-2's weights are transposed
    )
    base.requires_grad_(False)
    try:
        peft.inject_adapter_in_model(adapters, base)
    except ValueError as error:
        layers = sorted(
            {name.rpartition(".")[2] for name, one in base.named_modules() if isinstance(one, nn.Linear | Conv1D)}
        )
        raise UserError(f"lora.target_modules: {error} The model's linear layers are {', '.join(layers)}") from error


def merge_adapters(
    module: nn.Module, weights: Iterable[tuple[str, Tensor]], prefix: str = ""
) -> Iterator[tuple[str, Tensor]]:
    """The weights of the same model without adapters, named as before `add_adapters`.

    ``weights`` is the state of ``module`` under ``prefix``, perhaps gathered from workers: the module itself only says
    which layers have adapters and how these are scaled. Tensors may come one by one in any order; a layer's are held
    until all three are there.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in weights:
        layer_name, _, leaf = name.partition(".base_layer.")
        if ".lora_" in name:
            layer_name, _, leaf = name.removesuffix(".default.weight").partition(".lora_")
        elif leaf != "weight":
            yield (f"{layer_name}.{leaf}" if leaf else name), tensor
            continue
        known = parts.setdefault(layer_name, {})
        known[leaf] = tensor
        if len(known) == 3:
            layer: Any = module.get_submodule(layer_name.removeprefix(prefix))
            change = layer.scaling["default"] * (known["B"] @ known["A"])
            yield f"{layer_name}.weight", known["weight"] + (change.T if layer.fan_in_fan_out else change)
            del parts[layer_name]
    assert not parts, f"adapters without a layer, or layers without: {', '.join(parts)}"
