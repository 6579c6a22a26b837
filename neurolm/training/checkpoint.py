"""A trained model as a folder that needs nothing else: weights, the config that builds them, and checksums.

``model.safetensors`` holds the weights, ``config.yaml`` what was trained and how, ``manifest.json`` the SHA-256 of all
files and is written last. Where there is need, ``text_code.json`` says how the language model writes text (if not as
GPT-2 does), and ``extra.safetensors`` holds tensors that came with published weights and that the model does not have.
The folder appears whole (written aside, then renamed) or not at all. What a run itself is resumed from is
`neurolm.training.run_checkpoint`.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file
from torch import Tensor, nn

from neurolm.config import UserError
from neurolm.training.tensor_file import TensorFile, TensorStream, holds

MAIN_FILES = ("model.safetensors", "config.yaml")


class ModelFolderError(UserError):
    """A folder that is not a whole, unchanged model."""


@dataclass(frozen=True)
class ModelFolder:
    """What a model folder says about itself, and its weights."""

    kind: str
    """tokenizer or neurolm."""
    values: dict[str, Any]
    """Plain settings: the model's config, how recordings are preprocessed, the tasks it answers, where it came from."""
    tensors: TensorFile
    """The weights by name, each read when it is asked for."""
    files: dict[str, str]
    """Further text files of the folder, by name."""


def save_model(
    folder: Path,
    kind: str,
    values: dict[str, Any],
    tensors: Mapping[str, Tensor] | TensorStream,
    *,
    files: Mapping[str, str] | None = None,
    extra: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a model folder, replacing an older one; of a stream no more than one tensor is held at a time.

    ``files`` are texts by file name; ``extra`` is kept beside the weights for `load_extra`.
    """
    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for name, contents in (("model.safetensors", tensors), ("extra.safetensors", extra or {})):
        stream = contents if isinstance(contents, TensorStream) else TensorStream.of(contents)
        if stream.specs:
            stream.write(aside / name)
    (aside / "config.yaml").write_text(yaml.safe_dump({"kind": kind, **values}, sort_keys=False, allow_unicode=True))
    for name, text in (files or {}).items():
        (aside / name).write_text(text, encoding="utf-8")
    sums = {path.name: _sha256(path) for path in sorted(aside.iterdir())}
    (aside / "manifest.json").write_text(json.dumps({"kind": kind, "sha256": sums}, indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)


def copy_model(source: Path, target: Path) -> None:
    """Put a copy of a model folder in the place of another, whole or not at all."""
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(source, aside)
    shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)


def load_model(folder: Path, kind: str) -> ModelFolder:
    """Read a model folder and check it. Raises ModelFolderError."""
    manifest_path = folder / "manifest.json"
    if not manifest_path.is_file():
        raise ModelFolderError(
            f"{folder}: no model here (manifest.json is missing); train this stage first, or mend the path"
        )
    manifest = json.loads(manifest_path.read_text())
    if manifest["kind"] != kind:
        raise ModelFolderError(f"{folder}: expected a {kind}, found a {manifest['kind']}")
    for name, expected in manifest["sha256"].items():
        if not (folder / name).is_file() or _sha256(folder / name) != expected:
            raise ModelFolderError(f"{folder / name}: missing or changed since it was written; train or copy it again")
    values = yaml.safe_load((folder / "config.yaml").read_text())
    others = [name for name in manifest["sha256"] if name not in MAIN_FILES and not name.endswith(".safetensors")]
    files = {name: (folder / name).read_text(encoding="utf-8") for name in others}
    return ModelFolder(values.pop("kind"), values, TensorFile(folder / "model.safetensors"), files)


def load_weights(module: nn.Module, tensors: TensorFile, *, leave_out: str | None = None) -> None:
    """Read weights and buffers into a module, each straight to where it belongs.

    ``leave_out`` begins the names of tensors that the module need not have. Raises ModelFolderError.
    """
    own = module.state_dict(keep_vars=True)
    stored = {name for name in tensors if leave_out is None or not name.startswith(leave_out)}
    if own.keys() != stored:
        differences = {"missing": own.keys() - stored, "unknown": stored - own.keys()}
        said = "; ".join(f"{what}: {', '.join(sorted(names))}" for what, names in differences.items() if names)
        raise ModelFolderError(f"{tensors.path}: not the weights of the model that config.yaml describes; {said}")
    for name, tensor in own.items():
        spec = tensors.specs[name]
        if spec.shape != tuple(tensor.shape) or not holds(tensor.dtype, spec.dtype):
            raise ModelFolderError(
                f"{tensors.path}: {name} is {list(spec.shape)} of {spec.dtype}, the model that config.yaml describes "
                f"has {list(tensor.shape)} of {tensor.dtype}"
            )
        tensors.read_into(tensor.detach(), name)  # where weights are partitioned, this one is whole just now


def load_extra(folder: Path) -> dict[str, Tensor]:
    """The tensors that were kept beside the weights of a folder that `load_model` has checked; often none."""
    path = folder / "extra.safetensors"
    return load_file(path) if path.is_file() else {}


def model_digest(folder: Path) -> str:
    """A short digest of a model folder's weights and config, for what is derived from it."""
    return hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()[:16]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
