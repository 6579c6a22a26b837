"""Ray Train with two DeepSpeed workers gives the numbers of one plain process, and a run id resumes."""

from pathlib import Path

import pytest

from neurolm.config import UserError, build, override
from neurolm.distributed.train import train
from neurolm.tracking import read_curves
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

    (together.folder / "finished.json").unlink()
    before = (together.folder / "tracking.jsonl").read_text().count('"event": "metrics"')
    kept = train(together, show_progress=False)
    after = (together.folder / "tracking.jsonl").read_text().count('"event": "metrics"')
    assert after == before, "a finished run that is resumed has no step left to do"
    assert kept["step"] == 6
    with pytest.raises(UserError, match="made from another config"):
        train(override(together, {"optimizer.learning_rate": 2e-3}), show_progress=False)


def test_several_workers_need_deepspeed(tmp_path: Path) -> None:
    run = override(tokenizer_run(tmp_path, tmp_path / "store"), {"workers": 2})
    with pytest.raises(UserError, match=r"engine\.kind=deepspeed"):
        train(run)
