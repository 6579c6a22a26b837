"""The one place that imports braindecode, an optional package."""

import importlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from neurolm.config import UserError

PARTS = ("torchaudio", "torchaudio.functional", "torchaudio.transforms")
"""What braindecode imports of torchaudio, for models that are no baselines."""


class BraindecodeMissing(UserError):
    """The optional package cannot be imported."""


def braindecode_models() -> Any:
    """The module ``braindecode.models``. Raises BraindecodeMissing."""
    if (found := sys.modules.get("braindecode.models")) is not None:
        return found
    try:
        with _torchaudio(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what its own dependencies deprecate
            return importlib.import_module("braindecode.models")
    except ImportError as error:
        raise BraindecodeMissing(
            "baselines: eegnet, eegconformer, sparcnet, contrawr, biot and labram come with braindecode, which cannot "
            f"be imported ({error}); pip install 'neurolm[baselines]', then pip install --no-deps braindecode==1.8.1, "
            "or leave them out of `baselines`"
        ) from error


@contextmanager
def _torchaudio() -> Iterator[None]:
    """Let braindecode be imported where torchaudio cannot be.

    On PyPI torchaudio is for CUDA alone, and with a torch for CPUs not even transformers can be imported beside it. So
    neurolm does not install it; while braindecode is imported something stands in its place that nobody can use.
    """
    try:
        is_there = importlib.util.find_spec("torchaudio") is not None and bool(importlib.import_module("torchaudio"))
    except (OSError, RuntimeError, ImportError):
        is_there = False
    if is_there:
        yield
        return
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "torchaudio"}
    for name in before:
        del sys.modules[name]
    whole, *parts = (_Absent(name) for name in PARTS)
    for module in (whole, *parts):
        sys.modules[module.__name__] = module
        setattr(whole, module.__name__.split(".")[-1], module)
    try:
        yield
    finally:
        for name in PARTS:
            sys.modules.pop(name, None)


class _Absent(types.ModuleType):
    """A module whose every name is a class that cannot be made use of."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (_Refusing,), {})


class _Refusing:
    def __init__(self, *arguments: Any, **named: Any) -> None:
        raise RuntimeError(f"{type(self).__name__} needs torchaudio, which could not be imported with braindecode")
