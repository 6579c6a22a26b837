"""Reads the weights of a model folder into a model, tensor by tensor: no more than one is in memory beside the model.

A process that holds a file's tensors all at once has the whole file among its resident pages, mapped or not. And where
an engine partitions weights, a model is never whole, so neither may its source be.
"""

from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from neurolm.training.checkpoint import ModelFolderError


def read_weights(module: nn.Module, folder: Path, *, leave_out: str | None = None) -> None:
    """Copy the weights of a folder that `load_model` has checked.

    ``leave_out`` begins the names of tensors that the module need not have. Raises ModelFolderError.
    """
    path = folder / "model.safetensors"
    with safe_open(path, framework="pt") as file:
        stored = {name for name in file.keys() if leave_out is None or not name.startswith(leave_out)}  # noqa: SIM118
    wanted = module.state_dict(keep_vars=True)
    if stored != wanted.keys():
        different = ", ".join(sorted(stored ^ wanted.keys())[:3])
        raise ModelFolderError(f"{path}: its tensors are not those of its config.yaml ({different}); train it again")
    for name, tensor in wanted.items():
        with safe_open(path, framework="pt") as file, torch.no_grad():  # closing it gives its pages back
            values = file.get_tensor(name)
            if values.shape != tensor.shape:
                raise ModelFolderError(
                    f"{path}: {name} has the shape {tuple(values.shape)}, config.yaml says {tuple(tensor.shape)}; "
                    "train it again"
                )
            tensor.copy_(values)
