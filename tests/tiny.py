"""Small windows and models for tests: real classes, two layers of width 16."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from neurolm.eeg.fingerprint import Fingerprint
from neurolm.eeg.fingerprint_files import DIGEST, RecordingFingerprint, write_fingerprints
from neurolm.eeg.shards import Manifest, ShardWriter, StoredWindow, combine_digests, window_digest, write_manifest
from neurolm.models.language_model import LanguageModelConfig
from neurolm.models.neural_tokenizer import NeuralTokenizer
from neurolm.models.neural_tokenizer_config import NeuralTokenizerConfig
from neurolm.models.neurolm import NeuroLM, NeuroLMConfig
from neurolm.sequences import Batch, WindowGroup, collate
from neurolm.text.bpe import gpt2_bpe
from neurolm.text.instructions import TASKS, EncodedTask, encode_task

torch.set_num_threads(1)  # more threads only get in the way at these sizes

TOKENIZER = NeuralTokenizerConfig(
    hidden_size=16,
    num_layers=2,
    num_heads=2,
    decoder_layers=1,
    codebook_size=32,
    codebook_dim=8,
    embedding_init_std=0.02,
)
MODEL = NeuroLMConfig(
    tokenizer=TOKENIZER,
    language_model=LanguageModelConfig(hidden_size=16, num_layers=2, num_heads=2, context=128, embedding_init_std=0.3),
)


def stored_window(
    num_channels: int = 2,
    num_times: int = 400,
    *,
    data_set: str = "workload",
    label: str | None = "rest",
    seed: int = 0,
) -> StoredWindow:
    """A window of noise in µV on the first rows of the channel vocabulary, counted backwards."""
    signal = 30 * np.random.default_rng(seed).standard_normal((num_channels, num_times))
    return StoredWindow(
        signal=signal.astype(np.float32),
        channel_indices=np.arange(num_channels, 0, -1, dtype=np.int16),
        data_set=data_set,
        subject="s",
        recording=f"r{seed}",
        start_s=0.0,
        label=label,
    )


def mixed_windows() -> list[StoredWindow]:
    """Seven windows of three shapes and two data sets."""
    workload = [("rest", 2), ("arithmetic", 2), ("rest", 3), ("arithmetic", 2)]
    sleep = ["W", "N3", "R"]
    return [
        stored_window(num_channels, 400, label=label, seed=seed) for seed, (label, num_channels) in enumerate(workload)
    ] + [stored_window(1, 600, data_set="hmc", label=label, seed=10 + seed) for seed, label in enumerate(sleep)]


def tasks() -> dict[str, EncodedTask]:
    """The two tasks that the windows of `mixed_windows` are asked."""
    return {name: encode_task(TASKS[name], gpt2_bpe()) for name in ("workload", "hmc")}


def group_of(windows: Sequence[StoredWindow], asked: dict[str, EncodedTask] | None = None) -> WindowGroup:
    """The only group of windows of one shape."""
    (group,) = collate(windows, np.arange(len(windows)), text=None, tasks=asked).groups
    return group


def parts(
    windows: Sequence[StoredWindow], text: np.ndarray | None, places: Sequence[Sequence[int]], with_tasks: bool
) -> list[Batch]:
    """Micro-batches of the given places; the text is dealt out in the same proportion, the last takes what is left."""
    asked = tasks() if with_tasks else None
    texts: Sequence[np.ndarray | None] = [None] * len(places) if text is None else np.array_split(text, len(places))
    return [
        collate([windows[place] for place in part], np.array(part, dtype=np.int64), text=piece, tasks=asked)
        for part, piece in zip(places, texts, strict=True)
    ]


def total_counts(batches: Sequence[Batch]) -> dict[str, float]:
    """What the loop gives a stage to divide by."""
    return {name: float(sum(batch.counts[name] for batch in batches)) for name in batches[0].counts}


def tiny_tokenizer(seed: int = 0) -> NeuralTokenizer:
    """A neural tokenizer whose codebook lies among its latents, so that codes differ."""
    torch.manual_seed(seed)
    tokenizer = NeuralTokenizer(TOKENIZER)
    group = group_of([stored_window(4, 1600, seed=99)])
    with torch.no_grad():
        features = tokenizer.encode(group.signal, group.channel_index, group.time_indices)
        tokenizer.quantizer.start(tokenizer.latents(features)[0], seed=0)
    return tokenizer


def tiny_neurolm(seed: int = 0) -> NeuroLM:
    """A NeuroLM around `tiny_tokenizer`, with logits of order one."""
    torch.manual_seed(seed)
    model = NeuroLM(MODEL)
    model.tokenizer.load_state_dict(tiny_tokenizer(seed).state_dict())
    torch.nn.init.normal_(model.language_model.head.weight, std=0.25)
    return model


def write_no_fingerprints(shard: Path, windows: Sequence[StoredWindow]) -> dict[str, str]:
    """Say who is in a shard, without a landmark; returns the manifest's entry."""
    nothing = Fingerprint(np.empty(0, np.uint32), np.empty(0, np.uint32))
    recordings = {
        window.recording: RecordingFingerprint(window.data_set, window.subject, window.recording, nothing)
        for window in windows
    }
    return {DIGEST: write_fingerprints(shard, list(recordings.values()))}


def tiny_tokenizer_settings(out: Path, store: Path) -> dict[str, Any]:
    """Plain settings of a stage 1 run of seconds."""
    return {
        "stage": "tokenizer",
        "out": str(out),
        "data": {"store": str(store)},
        "epochs": 2,
        "validations": 2,
        "batch": {"size": 8, "text_size": 3, "text_length": 16, "micro_size": 2},
        "optimizer": {"learning_rate": 1e-3},
        "model": {
            "hidden_size": 16,
            "num_layers": 1,
            "num_heads": 2,
            "decoder_layers": 1,
            "codebook_size": 16,
            "codebook_dim": 8,
            "embedding_init_std": 0.02,
        },
        "tracking": {"enabled": False},
        "resources": {"cpus_per_worker": 0.5, "reader_cpus": 0.1},
    }


def write_tiny_tokenizer_config(out: Path, store: Path) -> Path:
    """The same as a file, in ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "tokenizer.yaml"
    path.write_text(yaml.safe_dump(tiny_tokenizer_settings(out, store)))
    return path


def write_tiny_store(
    folder: Path,
    num_windows: int,
    *,
    mixed_shapes: bool = False,
    shape: tuple[int, int] = (2, 400),
    labels: Sequence[str] = ("rest",),
) -> Path:
    """A finished store of noise: ``num_windows`` to train on in two shards, four to validate on, ``labels`` in turn.

    Windows have ``shape`` channels and times; with ``mixed_shapes`` every third has three channels.
    """

    def window(seed: int) -> StoredWindow:
        num_channels = 3 if mixed_shapes and seed % 3 == 0 else shape[0]
        return stored_window(num_channels, shape[1], label=labels[seed % len(labels)], seed=seed)

    parts = {
        split: [window(seed) for seed in seeds]
        for split, seeds in (("train", range(num_windows)), ("val", range(100, 104)))
    }
    return write_store(folder, parts)


def write_store(folder: Path, parts: dict[str, list[StoredWindow]]) -> Path:
    """A finished store of the given windows by split, each split in two shards."""
    files, digests = [], []
    for split, found in parts.items():
        for shard, places in enumerate(np.array_split(np.arange(len(found)), 2)):
            windows = [found[place] for place in places]
            path = folder / f"{split}-noise-{shard:05d}.parquet"
            with ShardWriter(path) as writer:
                writer.write(windows)
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            files.append({"name": path.name, "split": split, "num_windows": len(windows), "sha256": sha256})
            digests += [window_digest(window, split) for window in windows]
    manifest = Manifest(
        data_digest=combine_digests(digests),
        files=files,
        counts={"num_windows": len(digests)},
        windows_by_split={split: len(windows) for split, windows in parts.items()},
        windows_by_label={},
        dropped={},
        quarantined={},
        preprocessing={},
        privacy_key_fingerprint="none",
    )
    write_manifest(folder, manifest)
    return folder
