"""Ray writes the tokens that one process writes, and streams them in the computed order."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from neurolm.config import as_dict, build, load, override
from neurolm.distributed.stream import OrderedDataConfig, step_chunks, worker_steps
from neurolm.distributed.sweep_config import TuneRun
from neurolm.distributed.token_job import encode_on_ray
from neurolm.distributed.train import train
from neurolm.distributed.tune import trial_run
from neurolm.eeg.reading import ReadingPlan, read_steps
from neurolm.eeg.shards import Store
from neurolm.eeg.token_store import TokenStore, TokenStoreError
from neurolm.tracking import read_curves
from neurolm.training.checkpoint import save_model
from neurolm.training.run_checkpoint import RunCheckpoints
from neurolm.training.runs import PretrainRun
from neurolm.training.token_job import TokenizeRun, encode_locally, tokenize
from neurolm.training.worker import train_locally
from tests.tiny import MODEL, tiny_tokenizer, write_tiny_store

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.filterwarnings("default")


def test_every_trial_of_a_sweep_reads_the_tokens_of_the_sweep(tmp_path: Path) -> None:
    config = ROOT / "ray_jobs" / "configs" / "workload" / "tune.yaml"
    sweep = load(TuneRun, config, {"out": str(tmp_path), "data.tokens": "bfloat16"})
    trial = trial_run(sweep, 1, {"optimizer.learning_rate": 1e-3})
    assert trial.out != sweep.out
    assert trial.data.tokens == "bfloat16"
    assert trial.training_tokens == sweep.training_tokens == tmp_path / "token_store"


@pytest.mark.ray
def test_ray_train_on_tokens_equals_one_process_on_signals(tmp_path: Path, ray_cluster: None) -> None:
    store = write_tiny_store(tmp_path / "store", num_windows=21, mixed_shapes=True)
    tokenizer = tiny_tokenizer()
    folder = tmp_path / "tokenizer" / "model"
    save_model(folder, "tokenizer", {"model": as_dict(tokenizer.config)}, tokenizer.state_dict())
    values = {
        "out": tmp_path,
        "data": {"store": store},
        "epochs": 1,
        "validations": 1,
        "batch": {"size": 8},
        "optimizer": {"learning_rate": 1e-3},
        "language_model": as_dict(MODEL.language_model),
        "tracking": {"enabled": False},
        "resources": {"cpus_per_worker": 0.5, "reader_cpus": 0.1},
    }
    alone = build(PretrainRun, values | {"run_id": "alone"}, source="test")
    on_ray = override(alone, {"run_id": "on-ray", "data.tokens": "float32"})
    with pytest.raises(TokenStoreError, match="does not exist"):
        train(on_ray, show_progress=False)
    tokenize(build(TokenizeRun, {"out": tmp_path, "data": as_dict(on_ray.data)}, source="test"), encode_locally)
    train_locally(alone, show_progress=False)
    train(on_ray, show_progress=False)
    expected, found = (read_curves(run.folder / "tracking.jsonl") for run in (alone, on_ray))
    assert len(expected["loss"]) == 3
    for name in ("loss", "gradient_norm", "validation/loss"):
        assert found[name] == [(step, pytest.approx(value, rel=2e-5)) for step, value in expected[name]]


@pytest.mark.ray
def test_ray_writes_and_streams_the_tokens_of_one_process(tmp_path: Path, ray_cluster: None) -> None:
    store = Store.open(write_tiny_store(tmp_path / "store", num_windows=23, mixed_shapes=True))
    tokenizer = tiny_tokenizer()
    save_model(tmp_path / "model", "tokenizer", {"model": as_dict(tokenizer.config)}, tokenizer.state_dict())
    values = {
        "out": tmp_path,
        "tokenizer": tmp_path / "model",
        "data": {"store": store.path, "tokens": "bfloat16", "token_store": tmp_path / "local"},
        "cpus_per_encoder": 0.5,
    }
    local = build(TokenizeRun, values, source="test")
    on_ray = override(local, {"data.token_store": str(tmp_path / "ray")})
    (expected,) = tokenize(local, encode_locally).values()
    (manifest,) = tokenize(on_ray, lambda job, shards: encode_on_ray(on_ray, job, shards)).values()
    assert manifest == expected
    for path in (tmp_path / "local").iterdir():
        assert (tmp_path / "ray" / path.name).read_bytes() == path.read_bytes(), path.name

    signals = ReadingPlan(store.path, None, batch_size=6, epochs=2, seed=5)
    plan = dataclasses.replace(signals, tokens=tmp_path / "ray")
    order = signals.order(store)
    for world_size in (1, 2, 3):
        checkpoints = RunCheckpoints(str(tmp_path), "run")
        chunks = step_chunks(checkpoints, plan.total_steps(order), batch_size=6)
        iterators = OrderedDataConfig(plan, reader_cpus=0.1).configure({"train": chunks}, world_size)
        rows: dict[int, dict[int, int]] = {}
        for rank, streams in enumerate(iterators):
            read = read_steps(TokenStore.open(tmp_path / "local", store), order, range(8), rank, world_size)
            for part, direct in zip(worker_steps(streams["train"], 0, 8), read, strict=True):
                assert part.step == direct.step
                np.testing.assert_array_equal(part.places, direct.places)
                for one, other in zip(part.windows, direct.windows, strict=True):
                    assert one.tokens is not None and other.tokens is not None
                    assert one.tokens.features.dtype == np.uint16
                    np.testing.assert_array_equal(one.tokens.features, other.tokens.features)
                    np.testing.assert_array_equal(one.tokens.codes, other.tokens.codes)
                    np.testing.assert_array_equal(one.channel_indices, other.channel_indices)
                    assert (one.signal.size, one.row, one.label) == (0, other.row, other.label)
                placed = zip(part.places.tolist(), (window.row for window in part.windows), strict=True)
                rows.setdefault(part.step, {}).update(placed)
        expected_rows = {step: dict(enumerate(order.batch(step).tolist())) for step in range(8)}
        assert rows == expected_rows  # those of signals, whatever the number of workers
