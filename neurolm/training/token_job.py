"""The tokenize job: the frozen encoder goes over a store once, and every later run reads what it made.

Like a store, it is planned shard by shard, written by a map (of this process, or of Ray on many nodes) and finished by
a manifest. Shards that an interrupted job wrote are kept; those of another tokenizer or other data are written again.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from neurolm.config import ConfigError, Location, config, override
from neurolm.datasets.ingest import Step
from neurolm.eeg.manifest import MANIFEST
from neurolm.eeg.shards import Store
from neurolm.eeg.token_shards import (
    TokenOrigin,
    TokenShard,
    account,
    has_tokens,
    token_shards,
    write_token_shard,
    written_origin,
)
from neurolm.eeg.token_store import (
    TokenManifest,
    TokenStore,
    TokenStoreError,
    is_token_manifest,
    write_token_manifest,
)
from neurolm.models.neural_tokenizer import NeuralTokenizer
from neurolm.progress import Bar
from neurolm.training.assembly import load_tokenizer
from neurolm.training.encoding import encode_windows, token_origin


@config
class TokenizeRun(Step):
    """Write the EEG tokens that ``data.tokens`` asks for."""

    tokenizer: Location | None = None
    """Model folder of the tokenizer; null: ``tokenizer/model`` in ``out``."""
    compat_pad_to: Annotated[int, Field(gt=0)] | None = None
    """Replaces the tokenizer's ``compat_pad_to``, as the setting of that name does in stage 3; null keeps it."""
    batch_size: Annotated[int, Field(gt=0)] = 64
    """Windows in one forward pass."""
    cpus_per_encoder: Annotated[float, Field(gt=0)] = 1.0
    """CPUs (and torch threads, at least one) of each Ray actor that encodes."""
    gpus_per_encoder: Annotated[float, Field(ge=0)] = 0.0
    """GPUs of each Ray actor that encodes."""

    @property
    def tokenizer_folder(self) -> Path:
        """The model folder of stage 1."""
        return self.tokenizer or self.out / "tokenizer" / "model"


@dataclass(frozen=True)
class TokenJob:
    """Everything that encoding a shard of one store needs, on any node."""

    store: Path
    folder: Path
    """Where the tokens are written."""
    tokenizer_folder: Path
    compat_pad_to: int | None
    origin: TokenOrigin
    batch_size: int


class ShardEncoder:
    """Holds the encoder and writes one shard after another."""

    def __init__(self, job: TokenJob, device: str = "cpu") -> None:
        self._job = job
        self._store = Store.open(job.store)
        self._tokenizer = frozen_tokenizer(job.tokenizer_folder, job.compat_pad_to).to(device)

    def __call__(self, shard: TokenShard) -> TokenShard:
        """Encode a shard; returns it, written."""
        job = self._job
        write_token_shard(
            job.folder,
            self._store,
            shard,
            job.origin,
            lambda windows: encode_windows(self._tokenizer, windows, job.origin.dtype, job.batch_size),
        )
        return shard


Execute = Callable[[TokenJob, Sequence[TokenShard]], Iterable[TokenShard]]
"""A map of `ShardEncoder` over shards; gives back each when it is written."""


def tokenize(run: TokenizeRun, execute: Execute) -> dict[Path, TokenManifest]:
    """Write the tokens of the downstream store and, where there is one, of the pre-training store; by their folders.

    Raises:
        ConfigError: ``data.tokens`` is none, or a folder holds something else.
        UserError: there is no tokenizer or no store.
    """
    dtype = run.data.tokens
    if dtype == "none":
        raise ConfigError("data.tokens is none; set data.tokens=bfloat16 or float32, here and in the runs that follow")
    places = {run.token_store: run.store}
    if run.has_pretraining_data:
        places[run.pretraining_token_store] = run.pretraining_store
    tokenizer = frozen_tokenizer(run.tokenizer_folder, run.compat_pad_to)
    manifests = {}
    for folder, store in places.items():
        origin = token_origin(tokenizer, Store.open(store).digest, dtype)
        job = TokenJob(
            store.absolute(),  # workers have working directories of their own
            folder.absolute(),
            run.tokenizer_folder.absolute(),
            run.compat_pad_to,
            origin,
            run.batch_size,
        )
        manifests[folder] = write_token_store(job, execute)
    return manifests


def write_token_store(job: TokenJob, execute: Execute) -> TokenManifest:
    """Encode the shards that are not there yet and write the manifest last. Raises ConfigError."""
    source = Store.open(job.store)
    if (finished := _finished(job, source)) is not None:
        return finished
    _refuse_foreign_folder(job.folder)
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / MANIFEST).unlink(missing_ok=True)
    shards = token_shards(source.manifest)
    missing = [shard for shard in shards if not has_tokens(job.folder, shard, job.origin)]
    if missing:
        bar = Bar("tokenize")
        for done, shard in enumerate(execute(job, missing), start=1):
            bar.show(done / len(missing), {"shards": f"{done}/{len(missing)}", "last": shard.name})
        bar.close()
    for torn in job.folder.glob(".*.tmp"):  # of a killed job, or of an actor that died and whose shard was repeated
        torn.unlink()
    left_out = len(source) - sum(shard.num_windows for shard in shards)
    manifest = TokenManifest(
        origin=job.origin,
        files=[account(job.folder, shard) for shard in shards],
        left_out={"test split: encoded when an evaluation opens it": left_out} if left_out else {},
    )
    write_token_manifest(job.folder, manifest)
    return manifest


def encode_locally(job: TokenJob, shards: Sequence[TokenShard]) -> Iterable[TokenShard]:
    """The map of one process."""
    return map(ShardEncoder(job), shards)


def frozen_tokenizer(folder: Path, compat_pad_to: int | None) -> NeuralTokenizer:
    """A trained tokenizer as stages 2 and 3 hold it: without decoders or gradients. Raises ModelFolderError."""
    trained = load_tokenizer(folder)
    changes = {} if compat_pad_to is None else {"compat_pad_to": compat_pad_to}
    tokenizer = NeuralTokenizer(override(trained.config, changes), with_decoders=False)
    tokenizer.load_state_dict(trained.state_dict())
    return tokenizer.requires_grad_(False).eval()


def describe_tokens(manifest: TokenManifest) -> str:
    """A token store in one line."""
    each = manifest.num_bytes / max(manifest.num_windows, 1) / 1024
    left_out = "".join(f", {number} windows without tokens ({reason})" for reason, number in manifest.left_out.items())
    return f"{manifest.num_windows} windows in {manifest.origin.dtype}, {each:.1f} KiB each{left_out}"


def _finished(job: TokenJob, source: Store) -> TokenManifest | None:
    """The manifest of the tokens that this job would write, where they are all there."""
    try:
        manifest = TokenStore.open(job.folder, source).manifest
    except TokenStoreError:
        return None
    return manifest if manifest.origin == job.origin else None


def _refuse_foreign_folder(folder: Path) -> None:
    """Tokens are never written over something else. Raises ConfigError."""
    foreign = [path.name for path in sorted(folder.glob("*.parquet")) if written_origin(path) is None]
    if (folder / MANIFEST).is_file() and not is_token_manifest(folder / MANIFEST):
        foreign.append(MANIFEST)
    if foreign:
        raise ConfigError(
            f"data.token_store: {folder} holds {foreign[0]}, which has no EEG tokens; give tokens a folder of their own"
        )
