"""What a run id stands for, and what may change between two starts of it."""

from pathlib import Path

import pytest

from neurolm.config import ConfigError, build, override
from neurolm.training.runs import TokenizerRun, training_digest
from tests.tiny import tiny_tokenizer_settings


def test_workers_and_patience_change_no_result(tmp_path: Path) -> None:
    run = build(TokenizerRun, tiny_tokenizer_settings(tmp_path, tmp_path / "store"), source="test")
    changed = override(run, {"workers": 3, "min_workers": 2, "survival.worker_timeout_s": 60})
    assert training_digest(changed) == training_digest(run)
    assert training_digest(override(run, {"batch.size": 9})) != training_digest(run)


def test_fewer_workers_than_the_fewest_are_refused(tmp_path: Path) -> None:
    run = build(TokenizerRun, tiny_tokenizer_settings(tmp_path, tmp_path / "store"), source="test")
    with pytest.raises(ConfigError, match="min_workers 3 is more than workers 2"):
        override(run, {"workers": 2, "min_workers": 3})
