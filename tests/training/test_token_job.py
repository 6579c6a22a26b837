"""The tokenize job on real recordings, and training that reads what it wrote."""

import dataclasses
import json
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neurolm.config import ConfigError, as_dict, build, override
from neurolm.datasets.ingest import DataConfig, ShardPlan, plan_downstream, plan_pretraining, run_locally, write_store
from neurolm.eeg.manifest import Manifest
from neurolm.eeg.reading import read_steps
from neurolm.eeg.sealing import count_openings
from neurolm.eeg.shards import SealedSplitError, Store
from neurolm.eeg.token_shards import TokenShard
from neurolm.eeg.token_store import TokenMismatch, TokenStore, TokenStoreError
from neurolm.tracking import read_curves
from neurolm.training import assembly, token_job
from neurolm.training.assembly import Assembly, assemble
from neurolm.training.checkpoint import ModelFolderError, save_model
from neurolm.training.context import LocalContext
from neurolm.training.encoding import EncoderError
from neurolm.training.runs import STAGES
from neurolm.training.token_job import ShardEncoder, TokenizeRun, TokenJob, describe_tokens, encode_locally, tokenize
from neurolm.training.training_run import TrainingRun, training_digest
from neurolm.training.worker import train_locally
from tests.tiny import MODEL, tiny_tokenizer


def few(plans: Sequence[ShardPlan], num_recordings: int, num_train_shards: int) -> list[ShardPlan]:
    """The first recordings of every split, so many in a shard; one shard to validate and one to test."""
    chosen = []
    for split in ("train", "val", "test"):
        sources = [source for plan in plans if plan.split == split for source in plan.sources]
        for number in range(min(num_train_shards if split == "train" else 1, len(sources))):
            part = sources[number * num_recordings : (number + 1) * num_recordings]
            plan = next(plan for plan in plans if plan.split == split)
            path = plan.path.with_name(f"{split}-{plan.data_set}-{number:05d}.parquet")
            chosen.append(dataclasses.replace(plan, path=path, sources=tuple(part)))
    return chosen


@pytest.fixture(scope="module")
def real(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores of a few eegmat and EEGMMIDB recordings, a tokenizer, and float32 tokens of both stores."""
    out = tmp_path_factory.mktemp("real")
    key = tmp_path_factory.mktemp("keys") / "privacy.key"
    roots = {"root": test_data / "eegmat", "pretraining_root": test_data / "eegmmidb", "pretraining_window_s": 2.0}
    config = build(DataConfig, {**roots, "privacy": {"key_file": key}}, source="test")
    write_store(few(plan_downstream(config, out / "store"), 2, 3), out / "store", run_locally)
    pretraining = out / "pretraining_store"
    write_store(few(plan_pretraining(config, pretraining), 1, 1), pretraining, run_locally)
    tokenizer = tiny_tokenizer()
    save_model(out / "tokenizer" / "model", "tokenizer", {"model": as_dict(tokenizer.config)}, tokenizer.state_dict())
    tokenize(job_settings(out), encode_locally)
    return out


def job_settings(out: Path, **changes: Any) -> TokenizeRun:
    values = {"out": out, "data": data_settings(out), "batch_size": 16}
    return override(build(TokenizeRun, values, source="test"), changes)


def data_settings(out: Path) -> dict[str, Any]:
    return {"pretraining_store": out / "pretraining_store", "tokens": "float32"}


def make_run(stage: str, real: Path, out: Path, **changes: Any) -> TrainingRun:
    """A run of few steps on the stores of ``real`` that writes to ``out``."""
    places = {
        "store": real / "store",
        "token_store": real / "token_store",
        "pretraining_token_store": real / "pretraining_token_store",
    }
    values: dict[str, Any] = {
        "stage": stage,
        "out": out,
        "data": data_settings(real) | places,
        "epochs": 1,
        "validations": 1,
        "batch": {"size": 16, "micro_size": 7},
        "optimizer": {"learning_rate": 1e-3},
        "tracking": {"enabled": False},
    }
    language_model = as_dict(MODEL.language_model)
    values |= {
        "tokenizer": {},
        "pretrain": {
            "tokenizer": real / "tokenizer" / "model",
            "language_model": language_model,
            "feature_norm": "first_batch",
        },
        "instruct": {"tasks": ["workload"], "losses": {"pooled_weight": 1.0}},
    }[stage]
    return override(build(STAGES[stage], values, source="test"), changes)


@pytest.fixture(scope="module")
def trained(real: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Stages 2 and 3, read from signals and from float32 tokens."""
    folders = {tokens: tmp_path_factory.mktemp(tokens) for tokens in ("none", "float32")}
    for tokens, out in folders.items():
        for stage in ("pretrain", "instruct"):
            train_locally(make_run(stage, real, out, **{"data.tokens": tokens}), show_progress=False)
    return folders


def test_everything_but_the_test_split_is_encoded_and_accounted_for(real: Path) -> None:
    for name in ("store", "pretraining_store"):
        source = Store.open(real / name)
        manifest = TokenStore.open(real / name.replace("store", "token_store"), source).manifest
        splits = source.manifest.windows_by_split
        assert manifest.num_windows == splits["train"] + splits["val"] > 0
        assert sum(manifest.left_out.values()) == splits.get("test", 0) == len(source) - manifest.num_windows
        assert manifest.num_bytes == sum(path.stat().st_size for path in manifest_files(real, name))
        assert count_openings(source.digest) == 0
    assert "windows without tokens (test split" in describe_tokens(
        TokenStore.open(real / "token_store", Store.open(real / "store")).manifest
    )


def manifest_files(real: Path, name: str) -> Iterator[Path]:
    return (real / name.replace("store", "token_store")).glob("*.parquet")


def loss_and_gradient(run: TrainingRun) -> tuple[dict[str, float], torch.Tensor, Assembly]:
    """The first three steps as the loop takes them, without an optimizer."""
    context = LocalContext()
    assembled = assemble(run, context)
    stage = assembled.stage.eval()
    sums: dict[str, float] = {}
    for part in read_steps(assembled.windows, assembled.order, range(3)):
        batch = assembled.batcher(part)
        totals = {name: float(count) for name, count in batch.counts.items()}
        if part.step == 0:
            stage.before_training(batch.micro_batches, context)
        for one in batch.micro_batches:
            shares = stage(one, totals)
            shares["loss"].backward()
            for name, value in shares.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
    gradients = [one.grad.flatten() for one in stage.parameters() if one.grad is not None]
    return sums, torch.cat(gradients), assembled


@pytest.mark.parametrize("stage", ["pretrain", "instruct"])
def test_float32_tokens_give_the_losses_and_gradients_of_signals(
    stage: str, real: Path, trained: dict[str, Path]
) -> None:
    run = make_run(stage, real, trained["none"])
    losses, gradient, kept = loss_and_gradient(run)
    expected, raw_gradient, raw = loss_and_gradient(override(run, {"data.tokens": "none"}))
    assert isinstance(kept.windows, TokenStore) and isinstance(raw.windows, Store)
    assert [kept.order.batch(step).tolist() for step in range(6)] == [
        raw.order.batch(step).tolist() for step in range(6)
    ]
    assert losses == pytest.approx(expected, rel=1e-5)
    assert float((gradient - raw_gradient).norm() / raw_gradient.norm()) < 1e-5


@pytest.mark.parametrize("stage", ["pretrain", "instruct"])
def test_whole_runs_on_tokens_follow_those_on_signals(stage: str, trained: dict[str, Path]) -> None:
    """Training steps and validation; Adam turns differences of rounding into larger ones of weights."""
    raw, kept = (read_curves(out / stage / "tracking.jsonl") for out in trained.values())
    assert raw.keys() == kept.keys()
    measured = ("throughput/", "memory/", "system/", "seconds_per_step", "data_wait_share", "validation_seconds")
    names = [name for name in raw if not name.startswith(measured)]
    assert {"loss", "gradient_norm", "validation/loss" if stage == "pretrain" else "validation/score"} <= set(names)
    for name in names:
        assert kept[name] == [(step, pytest.approx(value, rel=1e-3, abs=1e-6)) for step, value in raw[name]], name


def test_no_signal_is_read_where_tokens_are(real: Path, trained: dict[str, Path], monkeypatch: Any) -> None:
    def read(*arguments: object) -> None:
        raise AssertionError("signals were read")

    monkeypatch.setattr(Store, "read", read)
    for stage in ("pretrain", "instruct"):
        assembled = assemble(make_run(stage, real, trained["none"]), LocalContext())
        assert next(read_steps(assembled.windows, assembled.order, range(1))).windows
        assert assembled.validate(True)


def test_bfloat16_tokens_train_beside_float32(real: Path, trained: dict[str, Path], tmp_path: Path) -> None:
    settings = job_settings(real, **{"data.tokens": "bfloat16", "data.token_store": str(tmp_path / "tokens")})
    settings = override(settings, {"data.pretraining_token_store": str(tmp_path / "pretraining")})
    rounded, _ = tokenize(settings, encode_locally).values()
    exact = TokenStore.open(real / "token_store", Store.open(real / "store")).manifest
    assert rounded.num_bytes < 0.55 * exact.num_bytes
    places = {"data.token_store": str(tmp_path / "tokens"), "data.tokens": "bfloat16"}
    run = make_run("instruct", real, trained["none"], **places)
    losses, gradient, _ = loss_and_gradient(run)
    expected, raw_gradient, _ = loss_and_gradient(override(run, {"data.tokens": "none"}))
    assert losses["loss"] == pytest.approx(expected["loss"], rel=0.01)
    assert losses["loss"] != expected["loss"]
    assert float((gradient - raw_gradient).norm() / raw_gradient.norm()) < 0.05


def test_tokens_that_do_not_belong_to_a_run_are_refused(real: Path, trained: dict[str, Path], tmp_path: Path) -> None:
    other = tiny_tokenizer(seed=1)
    save_model(tmp_path / "other", "tokenizer", {"model": as_dict(other.config)}, other.state_dict())
    out = trained["none"]
    refusals = {
        r"the tokenizer \(digest\) is [0-9a-f]{16} here and [0-9a-f]{16} in this run": make_run(
            "pretrain", real, out, tokenizer=str(tmp_path / "other")
        ),
        "compat_pad_to is None here and 276 in this run": make_run("instruct", real, out, compat_pad_to=276),
        r"data\.tokens is float32 here and bfloat16 in this run": make_run(
            "instruct", real, out, **{"data.tokens": "bfloat16"}
        ),
        r"the data \(digest\) is [0-9a-f]{64} here and [0-9a-f]{64} in this run": make_run(
            "instruct", real, out, **{"data.token_store": str(real / "pretraining_token_store")}
        ),
    }
    for words, run in refusals.items():
        with pytest.raises(TokenMismatch, match=words):
            assemble(run, LocalContext())
    with pytest.raises(TokenStoreError, match="this store of EEG tokens does not exist"):
        assemble(make_run("instruct", real, out, **{"data.token_store": str(tmp_path / "x")}), LocalContext())


def test_an_encoder_that_is_trained_cannot_be_served(
    real: Path, trained: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    load = assembly.load_neurolm

    def unfrozen(*arguments: Any) -> Any:
        model, values = load(*arguments)
        model.tokenizer.requires_grad_(True)
        return model, values

    monkeypatch.setattr(assembly, "load_neurolm", unfrozen)
    with pytest.raises(EncoderError, match=r"data\.tokens is float32, but the tokenizer .* is not frozen"):
        assemble(make_run("instruct", real, trained["none"]), LocalContext())
    assemble(make_run("instruct", real, trained["none"], **{"data.tokens": "none"}), LocalContext())


def test_stage_1_reads_signals_and_does_not_know_of_tokens(real: Path, tmp_path: Path) -> None:
    run = make_run("tokenizer", real, tmp_path)
    assert run.training_tokens is None
    assert training_digest(run) == training_digest(override(run, {"data.tokens": "none"}))
    later = make_run("instruct", real, tmp_path)
    assert training_digest(later) != training_digest(override(later, {"data.tokens": "none"}))
    moved = override(later, {"data.token_store": str(tmp_path)})
    assert training_digest(later) == training_digest(moved)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refuse_to_encode(job: TokenJob, shards: Sequence[TokenShard]) -> Iterable[TokenShard]:
    raise AssertionError(f"{len(shards)} shards would be encoded again")


def test_a_finished_job_is_not_done_again(real: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (real / "token_store").iterdir()}
    tokenize(job_settings(real), refuse_to_encode)
    assert {path: path.stat().st_mtime_ns for path in (real / "token_store").iterdir()} == before


KILLED = """
import os, pickle, signal, sys
from neurolm.training import token_job
job, shards_before_death = pickle.load(sys.stdin.buffer)
encode, calls = token_job.encode_windows, []
def encode_or_die(*arguments):
    calls.append(1)
    encoded = encode(*arguments)
    if len(calls) > shards_before_death:
        os.kill(os.getpid(), signal.SIGKILL)  # the shard's file is open and not whole
    return encoded
token_job.encode_windows = encode_or_die
token_job.write_token_store(job, token_job.encode_locally)
"""


def test_a_killed_job_encodes_only_what_is_missing(real: Path, tmp_path: Path) -> None:
    job = dataclasses.replace(captured_job(real), folder=tmp_path / "tokens")
    killed = subprocess.run([sys.executable, "-c", KILLED], input=pickle.dumps((job, 2)), check=False)
    assert killed.returncode == -signal.SIGKILL
    names = sorted(path.name for path in job.folder.iterdir())
    whole = [name for name in names if name.endswith(".parquet")]
    assert len(whole) == 2 and len(names) == 3 and names[0].endswith(".tmp"), names
    with pytest.raises(TokenStoreError, match="writing did not finish"):
        TokenStore.open(job.folder, Store.open(job.store))
    encoded: list[str] = []

    def execute(job: TokenJob, shards: Sequence[TokenShard]) -> Iterable[TokenShard]:
        encoded.extend(shard.name for shard in shards)
        return encode_locally(job, shards)

    token_job.write_token_store(job, execute)
    assert sorted([*encoded, *whole]) == sorted(path.name for path in manifest_files(real, "store"))
    assert content(job.folder) == content(real / "token_store")


def captured_job(out: Path, **changes: Any) -> TokenJob:
    """The job for the downstream store that these settings make."""
    jobs: list[TokenJob] = []

    class Captured(Exception):
        pass

    def execute(job: TokenJob, shards: Sequence[TokenShard]) -> Iterable[TokenShard]:
        jobs.append(job)
        raise Captured

    nowhere = {"data.token_store": str(out / "never written")}
    with pytest.raises(Captured):
        tokenize(job_settings(out, **nowhere, **changes), execute)
    (out / "never written").rmdir()
    return jobs[0]


def test_a_store_that_grew_keeps_the_shards_it_had(real: Path, tmp_path: Path) -> None:
    """And another tokenizer's tokens are written over."""
    whole = json.loads((real / "store" / "manifest.json").read_text())
    grown = tmp_path / "store"
    grown.mkdir()
    for path in (real / "store").glob("*.parquet"):
        (grown / path.name).symlink_to(path)
    smaller = [file for file in whole["files"] if file["name"] != "train-workload-00001.parquet"]
    counts = {"files": smaller, "data_digest": "before"}
    encoded: list[list[str]] = []

    def execute(job: TokenJob, shards: Sequence[TokenShard]) -> Iterable[TokenShard]:
        encoded.append([shard.name for shard in shards])
        return encode_locally(job, shards)

    job = dataclasses.replace(captured_job(real), store=grown, folder=tmp_path / "tokens")
    for values, origin in ((whole | counts, {"data": "before"}), (whole, {}), (whole, {"tokenizer": "retrained"})):
        (grown / "manifest.json").write_text(json.dumps(values))
        origin = {"data": Manifest(**values).data_digest} | origin
        token_job.write_token_store(dataclasses.replace(job, origin=dataclasses.replace(job.origin, **origin)), execute)
    assert [len(names) for names in encoded] == [3, 1, 4]
    assert encoded[1] == ["train-workload-00001.parquet"]


def test_tokens_are_never_written_over_something_else(real: Path, tmp_path: Path) -> None:
    before = content(real / "store")
    for folder, found in (
        (real / "store", r"holds test-workload-00000\.parquet"),
        (real / "tokenizer" / "model", "holds manifest"),
    ):
        with pytest.raises(ConfigError, match=rf"data\.token_store: .*{found}.*, which has no EEG tokens"):
            tokenize(job_settings(real, **{"data.token_store": str(folder)}), refuse_to_encode)
    assert content(real / "store") == before


def test_the_job_says_what_it_misses(real: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.tokens is none; set data\.tokens=bfloat16 or float32"):
        tokenize(job_settings(real, **{"data.tokens": "none"}), refuse_to_encode)
    with pytest.raises(ModelFolderError, match="no model here"):
        tokenize(job_settings(real, tokenizer=str(tmp_path)), refuse_to_encode)


def test_the_job_cannot_reach_the_test_split(real: Path, tmp_path: Path) -> None:
    job = dataclasses.replace(captured_job(real), folder=tmp_path)
    (test,) = [file for file in Store.open(job.store).manifest.files if file["split"] == "test"]
    shard = TokenShard(test["name"], "test", 0, test["num_windows"], test["sha256"])
    with pytest.raises(SealedSplitError):
        ShardEncoder(job)(shard)
    assert list(tmp_path.iterdir()) == []


def test_padding_of_stage_3_has_tokens_of_its_own(real: Path, trained: dict[str, Path], tmp_path: Path) -> None:
    places = {"data.token_store": str(tmp_path / "tokens"), "compat_pad_to": 276}
    settings = job_settings(real, **places, **{"data.pretraining_store": None})
    tokenize(settings, encode_locally)
    run = make_run("instruct", real, trained["none"], **places)
    losses, _, _ = loss_and_gradient(run)
    expected, _, _ = loss_and_gradient(override(run, {"data.tokens": "none"}))
    other, _, _ = loss_and_gradient(override(run, {"data.tokens": "none", "compat_pad_to": None}))
    assert losses == pytest.approx(expected, rel=1e-5)
    assert abs(losses["pooled_loss"] - other["pooled_loss"]) > 1e-4 * np.abs(other["pooled_loss"])
