"""Published checkpoints to model folders and back: `neurolm import-official` and `neurolm export`.

Tensors go from file to file as they are, through no model; sizes come from the file, names from
`neurolm.models.official`. What the file holds and our models do not is kept beside them, so that the same file can be
written again bit by bit. The optimizer's state is left behind.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neurolm.config import as_dict, build, override
from neurolm.eeg.preprocessing import PreprocessingConfig
from neurolm.models import official, official_sizes
from neurolm.models.neural_tokenizer import NeuralTokenizer
from neurolm.models.neural_tokenizer_config import NeuralTokenizerConfig
from neurolm.models.neurolm import NeuroLMConfig
from neurolm.models.official import PREFIX, OfficialError
from neurolm.training.checkpoint import load_extra, load_model, save_model

ARGUMENTS = {"tokenizer": ("encoder_args", "decoder_args"), "neurolm": ("model_args",)}
"""What each kind of published file states about its sizes, and is told by."""
RELEASED_SEED = 1337


@dataclass(frozen=True)
class OfficialFile:
    """A published checkpoint as it was read."""

    kind: str
    """tokenizer or neurolm."""
    checkpoint: dict[str, Any]
    """The file's dictionary; ``model`` without prefix."""
    has_prefix: bool

    @property
    def model(self) -> dict[str, Tensor]:
        """The tensors."""
        tensors: dict[str, Tensor] = self.checkpoint["model"]
        return tensors

    @property
    def about(self) -> dict[str, Any]:
        """Everything but tensors, as plain values: sizes and how far the training went."""
        names = [*ARGUMENTS[self.kind], "iter_num", "epoch"]
        plain = {name: self.checkpoint[name] for name in names if name in self.checkpoint}
        return json.loads(json.dumps(plain)) | {"has_prefix": self.has_prefix}


def read_official(path: Path) -> OfficialFile:
    """Read a ``VQ.pt`` or ``NeuroLM-*.pt``; nothing in it is executed. Raises OfficialError."""
    try:
        checkpoint = _load(path)
    except FileNotFoundError:
        raise OfficialError(f"{path}: no such file; give a published VQ.pt or NeuroLM-*.pt") from None
    except Exception as error:  # damaged bytes make the reader fail in a dozen ways
        reason = f"{type(error).__name__} {error}".split(". ")[0].splitlines()[0]
        raise OfficialError(
            f"{path}: not a checkpoint of plain tensors and numbers, or a damaged one ({reason}); download it again"
        ) from None
    model = checkpoint.get("model") if isinstance(checkpoint, dict) else None
    kinds = [
        kind for kind, names in ARGUMENTS.items() if model is not None and all(name in checkpoint for name in names)
    ]
    if len(kinds) != 1 or not isinstance(model, dict) or not all(isinstance(one, Tensor) for one in model.values()):
        found = ", ".join(map(str, checkpoint)) if isinstance(checkpoint, dict) else type(checkpoint).__name__
        raise OfficialError(
            f"{path}: found {found}; expected the tensors `model` with encoder_args and decoder_args (VQ.pt) or with "
            "model_args (NeuroLM-*.pt)"
        )
    tensors = official.without_prefix(model)
    if len(tensors) != len(model):
        raise OfficialError(f"{path}: some tensors are there twice, with and without the prefix {PREFIX}")
    return OfficialFile(kinds[0], checkpoint | {"model": tensors}, all(name.startswith(PREFIX) for name in model))


def import_official(
    path: Path, folder: Path, tokenizer: Path | None = None, settings: Mapping[str, Any] | None = None
) -> list[str]:
    """Write the model folder of a published file, with the switches that its weights were trained with.

    Args:
        path: ``VQ.pt`` or ``NeuroLM-*.pt``.
        folder: the model folder to write; an older model there is replaced.
        tokenizer: for a ``NeuroLM-*.pt``, the ``VQ.pt`` or the tokenizer's model folder that has its codebook. Without
            it the model can be tuned and asked, but has no codes.
        settings: dotted settings of the model's config that replace the compatible ones.

    Returns:
        What the user should know about the result.

    Raises:
        OfficialError: the file is not in the published layout, or the tokenizer is another one.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / "manifest.json").is_file()):
        raise OfficialError(f"{folder}: is something else than a model folder; choose another one for --out")
    file = read_official(path)
    config: NeuralTokenizerConfig | NeuroLMConfig
    try:
        if file.kind == "tokenizer":
            if tokenizer is not None:
                raise OfficialError(f"{path}: is a tokenizer itself; leave --tokenizer out")
            config, tensors, extra = _import_tokenizer(file, path, settings or {})
            notes = [f"stage 1, {_count(tensors)} values in {len(tensors)} tensors"]
        else:
            config, tensors, notes = _import_neurolm(file, path, tokenizer, settings or {})
            extra = {}
    except KeyError as error:
        raise OfficialError(f"{path}: does not state {error}; expected it in {ARGUMENTS[file.kind]}") from None
    with path.open("rb") as whole:
        source = hashlib.file_digest(whole, "sha256").hexdigest()
    values = {
        "model": as_dict(config),
        "preprocessing": as_dict(PreprocessingConfig()),
        "tasks": [],
        "layouts": {},
        "trained": {
            "stage": "tokenizer" if file.kind == "tokenizer" else "pretrain",
            "config_digest": source[:16],
            "data_digest": "unknown",
            "seed": RELEASED_SEED,
            "validation": {},
        },
        "official": file.about | {"sha256": source},
    }
    save_model(folder, file.kind, values, tensors, extra=extra)
    return notes


def export_official(folder: Path, path: Path) -> list[str]:
    """Write a model folder as a file in the published layout; returns what the user should know about it.

    Raises:
        OfficialError: the layout cannot hold the model; the message names the settings.
        ModelFolderError: there is no whole model in the folder.
    """
    if path.exists():
        raise OfficialError(f"{path}: is there already; remove it or choose another name")
    kind = _kind(folder)
    saved = load_model(folder, kind)
    about: dict[str, Any] = saved.values.get("official") or {}
    source, notes = str(folder / "config.yaml"), list[str]()
    if kind == "tokenizer":
        config = build(NeuralTokenizerConfig, saved.values["model"], source=source)
        layout, arguments, pad_to = (
            official.tokenizer_layout(config),
            official_sizes.tokenizer_args(config),
            config.compat_pad_to,
        )
    else:
        whole = build(NeuroLMConfig, saved.values["model"], source=source)
        layout, arguments = official.neurolm_layout(whole), official_sizes.neurolm_args(whole.language_model)
        pad_to = whole.tokenizer.compat_pad_to
    tensors = layout.to_official(dict(saved.tensors)) | load_extra(folder)
    if absent := [name for name in layout.shapes if name not in tensors]:
        tensors |= _stand_ins(layout, tensors, absent)
        notes.append(f"the model has none of these, which only continuing stage 1 reads: {', '.join(absent)}")
    if pad_to is None:
        notes.append("trained without padding; the released code pads, so its features will differ from ours")
    layout.check(tensors, str(folder))
    prefix = PREFIX if about.get("has_prefix") else ""
    stated = {name: about.get(name, value) for name, value in (arguments | {"iter_num": 0, "epoch": 0}).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    torch.save({"model": {prefix + name: one.contiguous() for name, one in tensors.items()}, **stated}, unfinished)
    unfinished.replace(path)
    return notes


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:  # the format before zip files cannot be mapped
        return torch.load(path, map_location="cpu", weights_only=True)


def _import_tokenizer(
    file: OfficialFile, path: Path, settings: Mapping[str, Any]
) -> tuple[NeuralTokenizerConfig, dict[str, Tensor], dict[str, Tensor]]:
    """Config, our tensors and the others of a ``VQ.pt``."""
    config = override(official_sizes.tokenizer_config(file.checkpoint), official.TOKENIZER_SWITCHES | dict(settings))
    layout = official.tokenizer_layout(config)
    layout.check(file.model, str(path))
    tensors = layout.to_ours(file.model) | {"quantizer.num_updates": torch.tensor(0)}
    return config, tensors, {name: file.model[name] for name in layout.extra}


def _import_neurolm(
    file: OfficialFile, path: Path, tokenizer: Path | None, settings: Mapping[str, Any]
) -> tuple[NeuroLMConfig, dict[str, Tensor], list[str]]:
    """Config, tensors and notes of a ``NeuroLM-*.pt``, with a codebook where there is one."""
    notes, of_tokenizer, known = list[str](), None, dict[str, Tensor]()
    if tokenizer is not None:
        of_tokenizer, known = _read_tokenizer(tokenizer)
    bare = official_sizes.neurolm_config(file.checkpoint, of_tokenizer, settings.get("tokenizer.num_heads"))
    config = override(bare, official.NEUROLM_SWITCHES | dict(settings))
    layout = official.neurolm_layout(config)
    layout.check(file.model, str(path))
    tensors = layout.to_ours(file.model)
    with torch.device("meta"):
        codes = NeuralTokenizer(config.tokenizer, with_decoders=False).state_dict()
    for name, like in codes.items():
        ours = f"tokenizer.{name}"
        if ours not in tensors:
            tensors[ours] = known[name] if name in known else torch.zeros(like.shape, dtype=like.dtype)
        elif name in known and not torch.equal(tensors[ours].float(), known[name].float()):
            raise OfficialError(
                f"{tokenizer}: its {name} is not that of {path}, so its codes are not those the model was trained on; "
                "give the tokenizer that belongs to it, or none"
            )
    notes.append(f"stage 2, {_count(tensors)} values in {len(tensors)} tensors")
    if not known:
        notes.append(
            "no codebook: the model can be tuned on tasks and asked, but has no codes, so it cannot be pre-trained; "
            "add --tokenizer VQ.pt for the codes (a new pre-training starts from the imported VQ.pt itself)"
        )
    return config, tensors, notes


def _read_tokenizer(path: Path) -> tuple[NeuralTokenizerConfig, dict[str, Tensor]]:
    """Config and tensors of a tokenizer's model folder or of a ``VQ.pt``."""
    if path.is_dir():
        saved = load_model(path, "tokenizer")
        config = build(NeuralTokenizerConfig, saved.values["model"], source=str(path / "config.yaml"))
        return config, dict(saved.tensors)
    file = read_official(path)
    if file.kind != "tokenizer":
        raise OfficialError(f"{path}: is a NeuroLM; expected a VQ.pt or the model folder of a tokenizer")
    config, tensors, _ = _import_tokenizer(file, path, {})
    return config, tensors


def _stand_ins(layout: official.Layout, tensors: Mapping[str, Tensor], absent: list[str]) -> dict[str, Tensor]:
    """For tensors that only published files have: the codebook's own state for its dead copies, zeros otherwise."""
    copies = {
        "VQ.quantize.embedding.cluster_size": "VQ.quantize.cluster_size",
        "VQ.quantize.embedding.embed_avg": "VQ.quantize.embedding.weight",
    }
    return {
        name: tensors[copies[name]].clone() if name in copies else torch.zeros(layout.shapes[name]) for name in absent
    }


def _kind(folder: Path) -> str:
    """Whether a folder holds a tokenizer or a NeuroLM; `load_model` says what is wrong where there is neither."""
    manifest = folder / "manifest.json"
    return str(json.loads(manifest.read_text())["kind"]) if manifest.is_file() else "neurolm"


def _count(tensors: Mapping[str, Tensor]) -> str:
    return f"{sum(tensor.numel() for tensor in tensors.values()):,}"
