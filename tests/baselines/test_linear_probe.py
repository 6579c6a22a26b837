"""The probe on the features of a tokenizer that has learnt nothing: places of channels, labels and splits are right."""

import json
from pathlib import Path

import numpy as np
import pytest

from neurolm.baselines.linear_probe import ProbeRun, probe, window_features
from neurolm.cli import main
from neurolm.config import UserError, as_dict, build
from neurolm.datasets.ingest import plan_downstream, run_locally, write_store
from neurolm.eeg.shards import Store
from neurolm.training.checkpoint import save_model
from tests.tiny import tiny_tokenizer, write_tiny_store


@pytest.fixture
def run(tmp_path: Path, demo_recordings: Path) -> ProbeRun:
    sets = {"demo_workload": {"layout": "workload", "folder": "workload"}}
    values = {"out": str(tmp_path), "data": {"root": str(demo_recordings), "sets": sets}}
    run = build(ProbeRun, values, source="test")
    write_store(plan_downstream(run.data, run.store), run.store, run_locally)
    tokenizer = tiny_tokenizer()
    save_model(run.tokenizer_folder, "tokenizer", {"model": as_dict(tokenizer.config)}, tokenizer.state_dict())
    return run


def test_windows_of_several_montages_fill_the_columns_of_their_channels(tmp_path: Path) -> None:
    store = Store.open(write_tiny_store(tmp_path / "store", 6, mixed_shapes=True))
    tokenizer = tiny_tokenizer()
    rows = store.index("train").rows
    found = window_features(tokenizer, store, rows, batch_size=4).reshape(len(rows), -1, tokenizer.config.hidden_size)
    for row, window in zip(found, store.read(rows), strict=True):
        filled = np.flatnonzero(np.abs(row).sum(-1))
        assert filled.tolist() == sorted(window.channel_indices.tolist())


def test_a_line_tells_synthetic_rest_from_arithmetic(run: ProbeRun) -> None:
    (name, result), *others = probe(run).items()
    assert name == "demo_workload" and not others
    assert result.split == "val" and result.num_subjects == 1
    assert result.auroc is not None and result.auroc > 0.8  # random features keep the spectrum well enough


def test_the_command_prints_one_json_object(run: ProbeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "probe.yaml"
    config.write_text(json.dumps(as_dict(run)))
    main(["probe", str(config), "tasks=[demo_workload]", "--json"])
    assert set(json.loads(capsys.readouterr().out)) == {"demo_workload"}


def test_an_unknown_task_is_refused(run: ProbeRun) -> None:
    with pytest.raises(UserError, match="tasks: sleepiness not known"):
        probe(build(ProbeRun, as_dict(run) | {"tasks": ["sleepiness"]}, source="test"))
