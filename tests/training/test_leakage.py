"""A re-encoded copy of a test recording among the training recordings stops training, until somebody says why."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import edfio
import mne
import numpy as np
import pytest

from neurolm.config import ConfigError, build
from neurolm.datasets.ingest import DataConfig, plan_downstream, run_locally, write_store
from neurolm.datasets.workload import Workload
from neurolm.eeg.recording import read_recording
from neurolm.eeg.sealing import count_openings
from neurolm.eeg.shards import Store
from neurolm.reports.evaluate import EvaluateRun, evaluate
from neurolm.reports.results import results_table
from neurolm.training import leakage
from neurolm.training.leakage import LeakageError, check_leakage
from neurolm.training.runs import STAGES
from neurolm.training.training_run import TrainingRun
from neurolm.training.worker import train_locally

TINY = {"hidden_size": 16, "num_layers": 1, "num_heads": 2}
REASON = "we ask what leakage does"


def re_encode(source: Path, target: Path) -> None:
    """The recording as somebody else would publish it: average reference, 1-40 Hz, 250 Hz, other integers."""
    recording = read_recording(source)
    signal = recording.signal - recording.signal.mean(axis=0)
    signal = mne.filter.filter_data(signal, recording.sampling_rate_hz, 1, 40, verbose=False)
    signal = mne.filter.resample(signal, 250, recording.sampling_rate_hz, verbose=False)
    names = Workload().channels
    signals = [
        edfio.EdfSignal(np.clip(row, -490, 490), 250, label=name, physical_dimension="uV", physical_range=(-500, 500))
        for name, row in zip(names, signal[:, : 250 * 62], strict=True)
    ]
    edfio.Edf(signals).write(target)


@pytest.fixture(scope="module")
def leaking(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of four subjects; a training file is really the test subject's."""
    folder = tmp_path_factory.mktemp("leaking")
    root = folder / "eegmat"
    root.mkdir()
    for subject in ("00", "01", "02", "03"):
        (root / f"Subject{subject}_2.edf").symlink_to(test_data / "eegmat" / f"Subject{subject}_2.edf")
    re_encode(test_data / "eegmat" / "Subject03_2.edf", root / "Subject00_1.edf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEUROLM_HOME", str(tmp_path_factory.mktemp("home")))
        config = build(DataConfig, {"root": root, "split": {"counts": [2, 1, 1]}}, source="test")
        write_store(plan_downstream(config, folder / "store"), folder / "store", run_locally)
    return folder / "store"


def make_run(stage: str, out: Path, store: Path, **data: Any) -> TrainingRun:
    values: dict[str, Any] = {
        "out": out,
        "data": {"store": store, **data},
        "epochs": 1,
        "validations": 1,
        "batch": {"size": 29, "text_size": 0},
        "optimizer": {"learning_rate": 1e-3},
        "tracking": {"enabled": False},
    }
    values |= {
        "tokenizer": {"model": {**TINY, "decoder_layers": 1, "codebook_size": 16, "codebook_dim": 8}},
        "pretrain": {"language_model": {**TINY, "context": 128}},
        "instruct": {"tasks": ["workload"]},
    }[stage]
    return build(STAGES[stage], values, source="test")


def test_a_copy_in_the_training_data_is_refused(leaking: Path, tmp_path: Path) -> None:
    run = make_run("tokenizer", tmp_path, leaking)
    with pytest.raises(LeakageError) as caught:
        train_locally(run, show_progress=False)
    said = str(caught.value)
    assert "test recordings with a signal in both: 1 (1 in train of workload and test of workload)" in said
    assert "data.allow_leakage='REASON'" in said
    assert "subjects in both" not in said  # by its name it is another person's
    assert not (tmp_path / "tokenizer").exists()
    assert count_openings(Store.open(leaking).digest) == 0


def test_a_reason_goes_with_every_model_and_result(leaking: Path, tmp_path: Path) -> None:
    for stage in STAGES:
        train_locally(make_run(stage, tmp_path, leaking, allow_leakage=REASON), show_progress=False)
    tags = [json.loads(line) for line in (tmp_path / "instruct" / "tracking.jsonl").read_text().splitlines()]
    assert any(record.get("values", {}).get("allow_leakage") == REASON for record in tags)
    run = build(EvaluateRun, {"out": tmp_path, "data": {"store": leaking}}, source="test")  # the model says it itself
    results = evaluate(run).results
    assert results["leakage"] == {"reason": REASON, "num_subjects": 1, "num_recordings": 1}
    assert json.loads((tmp_path / "results.json").read_text())["leakage"] == results["leakage"]
    assert f"LEAKAGE ALLOWED: {REASON} (test subjects trained on: 1, recordings: 1)." in results_table(results)


def test_evaluation_is_refused_before_the_test_split_is_opened(
    leaking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("neurolm.training.worker.check_leakage", lambda run, reason: None)
        for stage in STAGES:
            train_locally(make_run(stage, tmp_path, leaking), show_progress=False)
    with pytest.raises(LeakageError):
        evaluate(build(EvaluateRun, {"out": tmp_path, "data": {"store": leaking}}, source="test"))
    assert count_openings(Store.open(leaking).digest) == 0


def test_a_pretraining_store_is_compared_with_the_downstream_test_split(
    leaking: Path, tmp_path: Path, test_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two stores of two groups, with two keys: the signal alone tells."""
    root = tmp_path / "other"
    root.mkdir()
    for name, subject in (("Subject01_1", "03"), ("Subject02_1", "05"), ("Subject03_1", "06")):
        shutil.copy(test_data / "eegmat" / f"Subject{subject}_2.edf", root / f"{name}.edf")
    values = {"root": root, "split": {"counts": [1, 1, 1]}, "privacy": {"key_file": tmp_path / "other.key"}}
    config = build(DataConfig, values, source="test")
    write_store(plan_downstream(config, tmp_path / "pretraining"), tmp_path / "pretraining", run_locally)
    clean = build(DataConfig, {"root": test_data / "eegmat", "split": {"counts": [29, 1, 1]}}, source="test")
    planned = {plan.split: plan for plan in plan_downstream(clean, tmp_path / "store")}
    few = [
        source for source in planned["train"].sources if source.subject not in ("Subject03", "Subject05", "Subject06")
    ]
    plans = [replace(planned["train"], sources=tuple(few[:2])), planned["val"], planned["test"]]
    write_store(plans, tmp_path / "store", run_locally)
    run = make_run("tokenizer", tmp_path / "out", tmp_path / "store", pretraining_store=tmp_path / "pretraining")
    with caplog.at_level(logging.WARNING):
        assert check_leakage(run, None) is None  # subjects 03, 05, 06 against 30
    assert "only signals were compared" in caplog.text
    run = make_run("tokenizer", tmp_path / "out", leaking, pretraining_store=tmp_path / "pretraining")
    with pytest.raises(LeakageError, match=r"pretraining trains on what the test split of .* holds: test recordings"):
        check_leakage(run, None)
    assert check_leakage(run, REASON) == {"reason": REASON, "num_subjects": 1, "num_recordings": 1}


def test_without_a_downstream_store_it_is_checked_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run("tokenizer", tmp_path, tmp_path / "absent")
    with caplog.at_level(logging.WARNING, logger=leakage.__name__):
        assert check_leakage(run, None) is None
    assert "checked later" in caplog.text


def test_a_reason_must_say_something(tmp_path: Path) -> None:
    for empty in ("", True):
        with pytest.raises(ConfigError, match=r"data\.allow_leakage"):
            make_run("tokenizer", tmp_path, tmp_path, allow_leakage=empty)
