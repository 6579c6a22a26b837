"""What a run was made with: code, installed packages, machine; nothing that tells who ran it, or where."""

import importlib.metadata
import platform
from typing import Any

import torch

from neurolm.tracking.code import git_commit, is_dirty, packages_digest
from neurolm.training.context import RunContext
from neurolm.training.devices import device_name

PACKAGES = ("torch", "ray", "deepspeed", "transformers", "numpy", "mlflow")
"""Whose versions are told one by one; the digest is over all that are installed."""


def provenance(context: RunContext) -> dict[str, Any]:
    """Facts of a run by dotted name, as MLflow shows them."""
    found: dict[str, Any] = {
        "code.commit": git_commit(),
        "code.is_dirty": is_dirty(),
        "environment.python": platform.python_version(),
        "environment.packages_digest": packages_digest(),
        "environment.device": device_name(context.device),
        "environment.cuda": torch.version.cuda,
        "environment.workers": context.world_size,
    }
    for name in PACKAGES:
        try:
            found[f"environment.{name}"] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {name: value for name, value in found.items() if value is not None}
