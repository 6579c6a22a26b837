"""Ray Train with two DeepSpeed workers gives the numbers of one plain process, and a run id resumes."""

import functools
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import ray.train
import torch
from ray.train import Checkpoint

from neurolm.config import UserError, build, override
from neurolm.distributed import train as train_module
from neurolm.distributed.context import RayContext, StopFlag, Watchdog
from neurolm.distributed.train import train
from neurolm.tracking import read_curves
from neurolm.training.context import ProcessGroupContext
from neurolm.training.full_disk import CheckpointError
from neurolm.training.run_checkpoint import RunCheckpoints
from neurolm.training.runs import TokenizerRun
from neurolm.training.worker import train_locally
from tests.tiny import tiny_tokenizer_settings, write_tiny_store

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("default")]


def tokenizer_run(out: Path, store: Path) -> TokenizerRun:
    return build(TokenizerRun, tiny_tokenizer_settings(out, store), source="test")


def test_two_workers_equal_one_and_a_run_id_resumes(tmp_path: Path, ray_cluster: None) -> None:
    store = write_tiny_store(tmp_path / "store", num_windows=21, mixed_shapes=True)
    alone = tokenizer_run(tmp_path / "alone", store)
    together = override(
        tokenizer_run(tmp_path / "together", store),
        {"workers": 2, "engine": {"kind": "deepspeed", "zero_stage": 2}},
    )
    train_locally(alone, show_progress=False)
    train(together, show_progress=False)
    expected, found = (read_curves(run.folder / "tracking.jsonl") for run in (alone, together))
    assert len(expected["loss"]) == 6
    for name in ("loss", "raw", "frequency", "commitment", "domain_eeg", "gradient_norm", "validation/loss"):
        for (step, one), (same_step, other) in zip(expected[name], found[name], strict=True):
            assert step == same_step
            assert other == pytest.approx(one, rel=2e-5), f"{name} at step {step}"

    # A bit of the last checkpoint flips: all workers, and the stream of their windows, take the one before.
    (together.folder / "finished.json").unlink()
    checkpoints = sorted((together.out / "checkpoints" / "tokenizer").glob("step-*"))
    assert [path.name[:13] for path in checkpoints] == ["step-00000003", "step-00000006"]
    assert not list((together.out / "checkpoints" / "tokenizer").glob("writing-*"))
    largest = max(checkpoints[1].rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    lines = len((together.folder / "tracking.jsonl").read_text().splitlines())
    kept = train(together, show_progress=False)
    assert kept["step"] == 6
    events = [json.loads(line) for line in (together.folder / "tracking.jsonl").read_text().splitlines()[lines:]]
    again = {event["step"]: event["values"]["loss"] for event in events if "loss" in event.get("values", {})}
    assert again == {step: pytest.approx(value, rel=1e-6) for step, value in found["loss"] if step > 3}
    (said,) = [values for event in events if "damaged_checkpoint" in (values := event.get("values", {}))]
    assert largest.name in said["damaged_checkpoint"] and "resumes at step 3" in said["damaged_checkpoint"]
    with pytest.raises(UserError, match="made from another config"):
        train(override(together, {"optimizer.learning_rate": 2e-3}), show_progress=False)


def test_an_upload_that_fails_beside_training_is_a_mistake_that_the_driver_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tokenizer_run(tmp_path, tmp_path / "store")
    context = RayContext.__new__(RayContext)  # without a process group
    reported: dict[str, Any] = {}
    monkeypatch.setattr(ProcessGroupContext, "__init__", lambda self, device, building: None)
    monkeypatch.setattr(ray.train, "report", lambda metrics, **settings: reported.update(settings))
    checkpoints, watchdog = RunCheckpoints(run.checkpoint_storage, run.name), Watchdog(600.0, 600.0)
    told = functools.partial(train_module._leave_mistake, run)
    context.__init__(torch.device("cpu"), nullcontext, checkpoints, told, StopFlag(run), watchdog)  # type: ignore[misc]

    def refuse(scratch: Path, name: str) -> str:
        raise CheckpointError(f"{name}: cannot be written (No space left on device)")

    monkeypatch.setattr(checkpoints, "commit", refuse)
    context.report({"step": 3}, tmp_path)
    with pytest.raises(CheckpointError):
        reported["checkpoint_upload_fn"](Checkpoint.from_directory(str(tmp_path)), "step-00000003-now")
    context.report({"step": 4}, None)  # does not wait for what has failed
    failure = ray.train.WorkerGroupError("a worker failed", {})
    assert train_module._mistake_of(run, failure) == "step-00000003-now: cannot be written (No space left on device)"
    (run.folder / train_module.MISTAKE).write_text("")  # there was no room for the words
    failure = ray.train.WorkerGroupError("a worker failed", {1: CheckpointError("no room")})
    assert train_module._mistake_of(run, failure) == "no room"
    watchdog.stop()


def test_several_workers_need_deepspeed(tmp_path: Path) -> None:
    run = override(tokenizer_run(tmp_path, tmp_path / "store"), {"workers": 2})
    with pytest.raises(UserError, match=r"engine\.kind=deepspeed"):
        train(run)
