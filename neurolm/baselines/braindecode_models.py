"""The one place that imports braindecode, an optional package."""

import importlib
import sys
import types
import warnings
from typing import Any

from neurolm.config import UserError


class BraindecodeMissing(UserError):
    """The optional package cannot be imported."""


def braindecode_models() -> Any:
    """The module ``braindecode.models``. Raises BraindecodeMissing."""
    try:
        _torchaudio()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what its own dependencies deprecate
            return importlib.import_module("braindecode.models")
    except ImportError as error:
        raise BraindecodeMissing(
            "baselines: eegnet, eegconformer, sparcnet, contrawr, biot and labram come with braindecode, which cannot "
            f"be imported ({error}); pip install 'neurolm[baselines]', or leave them out of `baselines`"
        ) from error


def _torchaudio() -> None:
    """Import torchaudio, which braindecode imports for filters that no baseline has.

    Its compiled part on PyPI is for CUDA. Where torch is for CPUs, or of another CUDA, that part cannot be loaded and
    would take the rest, plain Python, with it; then the rest is imported without.
    """
    try:
        importlib.import_module("torchaudio")
    except (OSError, RuntimeError):
        for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
            del sys.modules[name]
        absent: Any = types.ModuleType("torchaudio._extension")
        absent._IS_TORCHAUDIO_EXT_AVAILABLE = False
        absent.fail_if_no_align = _needs_the_compiled_part
        sys.modules[absent.__name__] = absent
        importlib.import_module("torchaudio")


def _needs_the_compiled_part(function: Any) -> Any:
    """In place of a function that cannot work without."""

    def refuse(*arguments: Any, **named: Any) -> Any:
        raise RuntimeError(
            f"torchaudio.{function.__name__} needs the compiled part of torchaudio, which cannot be loaded"
        )

    return refuse
