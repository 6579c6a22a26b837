"""All three stages, evaluation and prediction in one process, on a store of a few windows."""

import errno
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neurolm.cli import main
from neurolm.config import ConfigError, UserError, build, load, override
from neurolm.eeg.sealing import SealedSplitError, count_openings
from neurolm.eeg.shards import (
    Manifest,
    ShardWriter,
    Store,
    StoredWindow,
    combine_digests,
    window_digest,
    write_manifest,
)
from neurolm.evaluation.predictions import Predictions
from neurolm.inference import FreeQuestion, predict_recording
from neurolm.reports.evaluate import EvaluateRun, evaluate
from neurolm.reports.rescore import rescore
from neurolm.tracking import read_curves
from neurolm.training import worker
from neurolm.training.assembly import assemble
from neurolm.training.checkpoint import ModelFolderError, load_model, model_digest
from neurolm.training.context import LocalContext
from neurolm.training.engine import TorchEngine
from neurolm.training.full_disk import CheckpointError
from neurolm.training.keeping import pareto_front
from neurolm.training.official_files import export_official, import_official
from neurolm.training.runs import STAGES
from neurolm.training.training_run import TrainingRun, training_digest
from neurolm.training.worker import ResumeError, made_from, train_locally
from tests.tiny import write_no_fingerprints

torch.set_num_threads(1)
LABELS = {"workload": ("rest", "arithmetic"), "hmc": ("W", "N1", "N2", "N3", "R")}
TINY = {"hidden_size": 16, "num_layers": 1, "num_heads": 2}
RESULTS = {"schema", "tasks", "config_digest", "data_digest", "git_commit", "seed", "test_openings", "leakage"}
TASK_RESULTS = {
    "split",
    "num_windows",
    "num_recordings",
    "num_subjects",
    "balanced_accuracy",
    "balanced_accuracy_ci95",
    "auroc",
    "auc_pr",
    "cohen_kappa",
    "weighted_f1",
    "invalid_answer_rate",
    "auroc_ci95",
    "cohen_kappa_ci95",
    "weighted_f1_ci95",
    "undefined_auroc_draws",
    "labels",
    "confusion_matrix",
    "recall",
    "calibration",
    "subjects",
    "recordings",
    "centred_by_subject",
    "released_protocol",
}


def window(data_set: str, split: str, number: int) -> StoredWindow:
    """A rhythm whose frequency is the class, in noise; the two sets have different montages."""
    label = LABELS[data_set][number % len(LABELS[data_set])]
    num_channels = {"workload": 2, "hmc": 1}[data_set]
    rng = np.random.default_rng([number, len(split)])
    times = np.arange(400) / 200
    signal = 20 * np.sin(2 * np.pi * (3 + 5 * (number % 5)) * times) + rng.normal(0, 5, (num_channels, 400))
    return StoredWindow(
        signal=signal.astype(np.float32),
        channel_indices=np.arange(num_channels, dtype=np.int16),
        data_set=data_set,
        subject=f"{split}-subject-{number % 6}",
        recording=f"{split}-recording-{number % 12}",
        start_s=float(number),
        label=label,
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    files, digests = [], []
    for data_set in LABELS:
        for split, size in (("train", 13), ("val", 10), ("test", 12)):
            windows = [window(data_set, split, number) for number in range(size)]
            path = folder / f"{split}-{data_set}-00000.parquet"
            with ShardWriter(path) as writer:
                writer.write(windows)
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            entry = {"name": path.name, "split": split, "num_windows": size, "sha256": sha256}
            files.append(entry | write_no_fingerprints(path, windows))
            digests += [window_digest(one, split) for one in windows]
    manifest = Manifest(data_digest=combine_digests(digests), files=files, counts={"num_windows": 70})
    write_manifest(folder, manifest)
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(" ".join(f"word{number}" for number in range(400)))
    return path


def make_run(stage: str, out: Path, store: Path, text: Path, **changes: Any) -> TrainingRun:
    values: dict[str, Any] = {
        "stage": stage,
        "out": out,
        "data": {"store": store, "sets": {name: {"layout": name} for name in LABELS}},
        "epochs": 2,
        "validations": 3,
        "batch": {"size": 5, "text_size": 2, "text_length": 8, "micro_size": 3},
        "optimizer": {"learning_rate": 3e-3},
        "corpus": {"path": text},
        "tracking": {"enabled": False},
    }
    values |= {
        "tokenizer": {"model": {**TINY, "decoder_layers": 1, "codebook_size": 16, "codebook_dim": 8}},
        "pretrain": {"language_model": {**TINY, "context": 64, "dropout": 0.1}, "spatial_embedding_init_std": 0.02},
        "instruct": {"tasks": list(LABELS)},
    }[stage]
    return build(STAGES[stage], values | changes, source="test")


def kept_steps(out: Path, run: str) -> list[int]:
    """Steps of the checkpoints of a run, in order."""
    return sorted(int(path.name.split("-")[1]) for path in (out / "checkpoints" / run).glob("step-*"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, store: Path, text: Path) -> Path:
    """A folder in which all three stages ran to their end."""
    out = tmp_path_factory.mktemp("trained")
    for stage in STAGES:
        train_locally(make_run(stage, out, store, text), show_progress=False)
    return out


def test_every_stage_writes_its_model_and_its_history(trained: Path, store: Path) -> None:
    kinds = {"tokenizer": "tokenizer", "pretrain": "neurolm", "instruct": "neurolm"}
    for stage, kind in kinds.items():
        folder = trained / stage
        values = load_model(folder / "model", kind).values
        assert values["trained"]["stage"] == stage
        assert values["trained"]["data_digest"] == Store.open(store).digest
        assert values["tasks"] == (list(LABELS) if stage == "instruct" else [])
        curves = read_curves(folder / "tracking.jsonl")
        assert [step for step, _ in curves["loss"]] == list(range(1, 13))  # 26 windows, 5 in a batch, 2 epochs
        assert all(np.isfinite(value) for curve in curves.values() for _, value in curve)
        # A tuned model is judged by its answers, the others by their loss.
        name = "validation/score" if stage == "instruct" else "validation/loss"
        assert [step for step, _ in curves[name]] == [4, 8, 12]
        assert kept_steps(trained, stage) == [8, 12]
        assert "\nstage: " in (folder / "config.yaml").read_text()
    health = load_model(trained / "tokenizer" / "model", "tokenizer").values["trained"]["validation"]
    assert 0 < health["codebook_usage"] <= 1
    assert health["step"] == 12


def test_published_files_are_what_a_run_starts_from(trained: Path, tmp_path: Path, store: Path, text: Path) -> None:
    files = {"tokenizer": tmp_path / "VQ.pt", "pretrain": tmp_path / "NeuroLM-tiny.pt"}
    for stage, file in files.items():
        export_official(trained / stage / "model", file)
        import_official(file, tmp_path / stage, files["tokenizer"] if stage == "pretrain" else None)
    changes: dict[str, Any] = {"epochs": 1, "validations": 1}
    pretrain = make_run("pretrain", tmp_path / "out", store, text, tokenizer=tmp_path / "tokenizer", **changes)
    train_locally(pretrain, show_progress=False)
    settings = load_model(pretrain.folder / "model", "neurolm").values["model"]
    assert (settings["tokenizer"]["compat_pad_to"], settings["text_start"]) == (1024, "window")

    changes |= {"pretrained": tmp_path / "pretrain", "compat_pad_to": 300}
    instruct = make_run("instruct", tmp_path / "out", store, text, **changes)
    train_locally(instruct, show_progress=False)
    settings = load_model(instruct.folder / "model", "neurolm").values["model"]
    assert (settings["tokenizer"]["compat_pad_to"], settings["text_start"]) == (300, "batch")


def test_the_tokenizer_learns_something_here(trained: Path) -> None:
    curve = [loss for _, loss in read_curves(trained / "tokenizer" / "tracking.jsonl")["loss"]]
    assert np.mean(curve[-3:]) < np.mean(curve[:3])


def test_instruct_keeps_the_best_validation_not_the_last(trained: Path) -> None:
    curve = read_curves(trained / "instruct" / "tracking.jsonl")["validation/score"]
    kept = load_model(trained / "instruct" / "model", "neurolm").values["trained"]["validation"]
    best = max(score for _, score in curve)
    assert kept["score"] == best
    assert kept["step"] == min(step for step, score in curve if score == best)


def test_instruct_keeps_the_best_by_ranks_and_the_front(trained: Path, tmp_path: Path, store: Path, text: Path) -> None:
    out = stage_again(trained, tmp_path / "out", "instruct")
    train_locally(make_run("instruct", out, store, text, keep="ranks", validations=6), show_progress=False)
    told = json.loads((out / "instruct" / "validations.json").read_text())
    assert [one["step"] for one in told] == [2, 4, 6, 8, 10, 12]
    scores = np.array([[one["scores"][task] for task in LABELS] for one in told])
    front = [row for row, one in enumerate(told) if one["is_on_front"]]
    assert front == pareto_front(scores)
    (kept,) = [one for one in told if one["is_kept"]]
    assert kept["mean_rank"] == min(one["mean_rank"] for one in told)
    folders = sorted(path.name for path in (out / "instruct" / "pareto").iterdir())
    assert folders == [f"step-{told[row]['step']:08d}" for row in front]
    chosen = out / "instruct" / "pareto" / f"step-{kept['step']:08d}"
    assert model_digest(out / "instruct" / "model") == model_digest(chosen)
    assert load_model(chosen, "neurolm").values["trained"]["validation"]["step"] == kept["step"]


def test_patience_ends_a_run_early_and_it_is_finished(trained: Path, tmp_path: Path, store: Path, text: Path) -> None:
    out = stage_again(trained, tmp_path / "out", "instruct")
    run = make_run("instruct", out, store, text, epochs=40, validations=40, patience=3)
    best = train_locally(run, show_progress=False)
    told = json.loads((out / "instruct" / "validations.json").read_text())
    after = [one for one in told if one["step"] > best["step"]]
    assert len(after) == 3 and len(told) < 40, "200 steps on 26 windows of noise do not get better for ever"
    mean = [np.mean(list(one["scores"].values())) for one in told]
    assert max(mean) == best["score"] and mean.index(max(mean)) == len(told) - 4
    assert train_locally(run, show_progress=False) == best, "a run that ended early is not gone on with"
    with pytest.raises(ConfigError, match="keep: final takes the last"):
        make_run("instruct", out, store, text, keep="final", patience=3)


def stage_again(trained: Path, out: Path, stage: str) -> Path:
    """A copy of everything before a stage."""
    shutil.copytree(trained, out)
    shutil.rmtree(out / stage)
    shutil.rmtree(out / "checkpoints" / stage)
    return out


def test_a_checkpoint_becomes_a_model_without_store_or_earlier_models(
    trained: Path, tmp_path: Path, demo_recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for stage in STAGES:
        shutil.copytree(newest_checkpoint(trained, stage), tmp_path / "checkpoint" / stage)
        main(["export-checkpoint", str(tmp_path / "checkpoint" / stage), "--out", str(tmp_path / stage)])
        if stage != "instruct":  # whose model is that of its best validation
            assert model_digest(tmp_path / stage) == model_digest(trained / stage / "model")
    model = tmp_path / "instruct"
    assert load_model(model, "neurolm").values["trained"]["validation"]["step"] == 12
    main(["predict", str(model), str(demo_recordings / "workload" / "Subject01_2.edf"), "--task", "workload"])
    main(["export", str(model), "--official", str(tmp_path / "NeuroLM.pt")])
    assert (tmp_path / "NeuroLM.pt").is_file()
    capsys.readouterr()
    for arguments, message in (
        ([str(tmp_path / "checkpoint" / "instruct"), "--out", str(model)], "is there already; remove it or choose"),
        ([str(trained / "instruct"), "--out", str(tmp_path / "new")], r"no training state here"),
    ):
        with pytest.raises(SystemExit):
            main(["export-checkpoint", *arguments])
        assert message in capsys.readouterr().err


class StoppedEngine(TorchEngine):
    """The process is killed in the middle of a step."""

    def step(self) -> dict[str, float]:
        if self.step_count == 7:
            raise KeyboardInterrupt
        return super().step()


@pytest.mark.parametrize("stage", list(STAGES))
def test_an_interrupted_run_ends_with_the_bits_of_an_uninterrupted_one(
    stage: str, trained: Path, tmp_path: Path, store: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = stage_again(trained, tmp_path / "out", stage)
    run = make_run(stage, out, store, text)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(worker, "TorchEngine", StoppedEngine)
        train_locally(run, show_progress=False)
    assert kept_steps(out, stage) == [4]
    assert not (run.folder / "finished.json").exists()
    torch.manual_seed(12345)  # another process
    train_locally(run, show_progress=False)
    for name in ("model/model.safetensors", "model/config.yaml", "finished.json"):
        assert (out / stage / name).read_bytes() == (trained / stage / name).read_bytes(), name
    steps = [step for step, _ in read_curves(run.folder / "tracking.jsonl")["loss"]]
    assert steps[-8:] == list(range(5, 13))
    assert sorted(set(steps)) == list(range(1, 13))


VARIED: dict[str, Any] = {
    "tasks": ["workload", "hmc", "depth"],
    "own_tasks": {
        "depth": {
            "data_set": "hmc",
            "question": "How deep is the sleep?",
            "answers": {"light": "light", "deep": "deep", "R": "dream"},
            "label_map": {"N1": "light", "N2": "light", "N3": "deep", "W": None},
            "lettered": True,
            "shuffle_options": True,
            "metric": "cohen_kappa",
        }
    },
    "task_settings": {"hmc": {"shuffle_options": True, "paraphrases": ["Which sleep stage is this?"]}},
    "losses": {"task_weights": {"hmc": 0.5}},
    "mixture": {"weights": {"workload": 1, "hmc": 2}, "fraction": 0.7},
    "batch": {"size": 5, "text_ratio": 0.4, "text_length": 8, "micro_size": 3},
}
"""Tuning that makes use of everything that is drawn."""


@pytest.fixture(scope="module")
def varied(trained: Path, tmp_path_factory: pytest.TempPathFactory, store: Path, text: Path) -> Path:
    out = stage_again(trained, tmp_path_factory.mktemp("varied") / "out", "instruct")
    train_locally(make_run("instruct", out, store, text, **VARIED), show_progress=False)
    return out


def test_what_a_run_draws_it_draws_again_after_an_interruption(
    trained: Path, varied: Path, tmp_path: Path, store: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("instruct", stage_again(trained, tmp_path / "out", "instruct"), store, text, **VARIED)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(worker, "TorchEngine", StoppedEngine)
        train_locally(run, show_progress=False)
    train_locally(run, show_progress=False)
    for name in ("model/model.safetensors", "model/config.yaml", "finished.json"):
        assert (run.folder / name).read_bytes() == (varied / "instruct" / name).read_bytes(), name


def test_a_run_records_how_it_reads_judges_and_speaks(varied: Path) -> None:
    """17 of 26 windows are left by the fraction, 9 and 8; an epoch has 6 of workload and 11 of hmc."""
    lines = [json.loads(line) for line in (varied / "instruct" / "tracking.jsonl").read_text().splitlines()]
    parameters = next(line["values"] for line in lines if "readings.hmc" in line.get("values", {}))
    assert parameters["readings.workload"] == (
        "13 windows: 6 read once, 3 read 2 times, 4 left out by mixture.fraction"
    )
    assert parameters["readings.hmc"] == "13 windows: 2 read 2 times, 6 read 3 times, 5 left out by mixture.fraction"
    curves = read_curves(varied / "instruct" / "tracking.jsonl")
    at_end = {name: curve[-1][1] for name, curve in curves.items()}
    scores = [at_end[f"validation/{name}"] for name in
              ("workload/balanced_accuracy", "hmc/balanced_accuracy", "depth/cohen_kappa")]  # fmt: skip
    assert at_end["validation/score"] == pytest.approx(np.mean(scores))
    assert [step for step, _ in curves["before/language_perplexity"]] == [0]
    assert len(curves["validation/language_perplexity"]) == 3
    before, after = (at_end[f"{when}/language_nats_per_token"] for when in ("before", "validation"))
    assert before != after and at_end["before/language_perplexity"] == pytest.approx(np.exp(before))


def test_a_half_written_checkpoint_never_counts(
    trained: Path, tmp_path: Path, store: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class DiskFull(TorchEngine):
        def save(self, folder: Path) -> None:
            super().save(folder)
            if self.step_count == 8:
                raise OSError(errno.ENOSPC, "No space left on device")

    run = make_run("tokenizer", tmp_path, store, text)
    said = "checkpoint of step 8 of run tokenizer: cannot be written .*No space left.*before it is untouched: make room"
    with monkeypatch.context() as patch, pytest.raises(CheckpointError, match=said):
        patch.setattr(worker, "TorchEngine", DiskFull)
        train_locally(run, show_progress=False)
    assert [path.name[:13] for path in (tmp_path / "checkpoints" / "tokenizer").iterdir()] == ["step-00000004"]
    train_locally(run, show_progress=False)
    assert model_digest(tmp_path / "tokenizer" / "model") == model_digest(trained / "tokenizer" / "model")


def newest_checkpoint(out: Path, run: str) -> Path:
    return max((out / "checkpoints" / run).glob("step-*"))


@pytest.mark.parametrize(("file", "is_cut"), [("state-*", False), ("part-0.json", True), ("manifest-0.json", False)])
def test_a_damaged_checkpoint_is_said_and_the_run_ends_with_the_same_bits_from_the_one_before(
    file: str, is_cut: bool, trained: Path, tmp_path: Path, store: Path, text: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(trained, out)
    run = make_run("pretrain", out, store, text)
    (run.folder / "finished.json").unlink()
    (path,) = newest_checkpoint(out, "pretrain").glob(file)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content[:-5] if is_cut else content)
    lines = len((run.folder / "tracking.jsonl").read_text().splitlines())
    train_locally(run, show_progress=False)
    for name in ("model/model.safetensors", "model/config.yaml", "finished.json"):
        assert (run.folder / name).read_bytes() == (trained / "pretrain" / name).read_bytes(), name
    events = [json.loads(line) for line in (run.folder / "tracking.jsonl").read_text().splitlines()[lines:]]
    (said,) = [
        event["values"]["damaged_checkpoint"] for event in events if "damaged_checkpoint" in event.get("values", {})
    ]
    assert path.name in said and said.endswith("the run resumes at step 8")
    assert [event["step"] for event in events if "loss" in event.get("values", {})] == [9, 10, 11, 12]
    assert kept_steps(out, "pretrain") == [8, 12, 12]  # the damaged one stays until two whole ones are newer


def test_changed_settings_are_taken_up_where_that_is_allowed_and_go_on_record(
    trained: Path, tmp_path: Path, store: Path, text: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(trained, out)
    with pytest.raises(ResumeError, match=r"another config; .*resume\.allow_changed=\[config\]"):
        train_locally(make_run("tokenizer", out, store, text, epochs=3), show_progress=False)
    longer = make_run("tokenizer", out, store, text, epochs=3, resume={"allow_changed": ["config"]})
    before = made_from(make_run("tokenizer", out, store, text))["config"]
    assert train_locally(longer, show_progress=False)["step"] == 18
    (changed,) = load_model(out / "tokenizer" / "model", "tokenizer").values["trained"]["changed"]
    assert changed == {"step": 12, "config": f"{before} -> {training_digest(longer)}"}
    events = (out / "tokenizer" / "tracking.jsonl").read_text()
    assert "resumed_with_changed" in events and before in events
    # What the weights do not depend on may change by itself.
    free = {"workers": 2, "checkpoints.keep": 5, "not_finite.policy": "skip", "resume.allow_changed": ()}
    assert training_digest(override(longer, free)) == training_digest(longer)
    # Now it is what it is: nothing has changed since, and nothing is trained again.
    assert train_locally(make_run("tokenizer", out, store, text, epochs=3), show_progress=False)["step"] == 18


def test_a_run_whose_folder_is_lost_goes_on_from_a_storage_elsewhere(
    trained: Path, tmp_path: Path, store: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = stage_again(trained, tmp_path / "out", "instruct")
    changes = {"checkpoints": {"storage": f"memory://{tmp_path}/elsewhere"}}
    run = make_run("instruct", out.as_uri(), store.as_uri(), text, **changes)  # type: ignore[arg-type]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(worker, "TorchEngine", StoppedEngine)
        train_locally(run, show_progress=False)
    shutil.rmtree(run.folder)
    train_locally(run, show_progress=False)
    for name in ("model/model.safetensors", "model/config.yaml", "finished.json"):
        assert (run.folder / name).read_bytes() == (trained / "instruct" / name).read_bytes(), name
    assert not (out / "checkpoints" / "instruct").exists()


class NanEngine(TorchEngine):
    """The seventh step makes a weight infinite, once in the life of a run's folder."""

    folder: Path

    def step(self) -> dict[str, float]:
        values = super().step()
        if self.step_count == 7 and not (self.folder / "left_out.json").exists():
            with torch.no_grad():
                next(one for one in self.module.parameters() if one.requires_grad and one.ndim > 1).fill_(torch.inf)
        return values


def test_a_run_whose_weights_break_goes_back_and_leaves_the_step_out(
    trained: Path, tmp_path: Path, store: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = stage_again(trained, tmp_path / "out", "tokenizer")
    run = make_run("tokenizer", out, store, text, not_finite={"policy": "skip"})
    monkeypatch.setattr(NanEngine, "folder", run.folder, raising=False)
    monkeypatch.setattr(worker, "TorchEngine", NanEngine)
    train_locally(run, show_progress=False)
    (left_out,) = load_model(run.folder / "model", "tokenizer").values["trained"]["skipped_steps"]
    assert left_out == {"step": 6, "reason": "step 6: its update made weights that are not finite"}
    steps = [step for step, _ in read_curves(run.folder / "tracking.jsonl")["loss"]]
    assert steps == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    assert [step for step, _ in read_curves(run.folder / "tracking.jsonl")["validation/loss"]] == [4, 8, 12]


def test_a_finished_run_is_not_trained_again(
    trained: Path, store: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("instruct", trained, store, text)
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    monkeypatch.setattr(worker, "assemble", None)
    kept = train_locally(run, show_progress=False)
    assert kept == json.loads((run.folder / "finished.json").read_text())["kept"]
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")} == before


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_run_id_means_one_config_one_data_set_and_one_model(
    is_finished: bool, trained: Path, tmp_path: Path, store: Path, text: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(trained, out)
    if not is_finished:
        (out / "instruct" / "finished.json").unlink()
    before = model_digest(out / "instruct" / "model")
    with pytest.raises(ResumeError, match=r"run 'instruct' in .*/out was made from another config; use another out"):
        train_locally(make_run("instruct", out, store, text, seed=1), show_progress=False)
    other = tmp_path / "store"
    shutil.copytree(store, other)
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(manifest | {"data_digest": "0" * 64}))
    with pytest.raises(ResumeError, match="made from another data; use"):
        train_locally(make_run("instruct", out, other, text), show_progress=False)
    shutil.rmtree(out / "pretrain" / "model")
    shutil.copytree(out / "instruct" / "model", out / "pretrain" / "model")
    with pytest.raises(ResumeError, match="made from another pretrained model; use"):
        train_locally(make_run("instruct", out, store, text), show_progress=False)
    assert model_digest(out / "instruct" / "model") == before
    # What weights do not depend on may change: where the store lies, what the run is tracked with.
    shutil.rmtree(other)
    shutil.copytree(store, other)
    tokenizer = make_run("tokenizer", out, other, text, tracking={"enabled": False, "experiment": "other"})
    train_locally(tokenizer, show_progress=False)


def test_training_cannot_reach_the_test_split(trained: Path, tmp_path: Path, store: Path, text: Path) -> None:
    """Not by asking, and not by accident: a store with other test windows trains the same model."""
    assembly = assemble(make_run("instruct", trained, store, text), LocalContext())
    with pytest.raises(SealedSplitError):
        assembly.store.index("test")
    trained_on = {int(row) for step in range(assembly.schedule.total_steps) for row in assembly.order.batch(step)}
    validated_on = set(assembly.store.index("val").rows.tolist())
    others = sorted(set(range(70)) - trained_on - validated_on)
    assert len(others) == 24
    for row in others:
        with pytest.raises(SealedSplitError):
            assembly.store.read([row])
    rubbish = tmp_path / "store"
    shutil.copytree(store, rubbish)
    for path in rubbish.glob("test-*"):
        with ShardWriter(path) as writer:
            writer.write(window(path.name.split("-")[1], "rubbish", number) for number in range(12))
    train_locally(make_run("tokenizer", tmp_path / "out", rubbish, text), show_progress=False)
    assert model_digest(tmp_path / "out" / "tokenizer" / "model") == model_digest(trained / "tokenizer" / "model")
    assert count_openings(Store.open(store).digest) == 0


def test_stages_say_what_they_miss(tmp_path: Path, store: Path, text: Path, trained: Path) -> None:
    for stage in ("pretrain", "instruct"):
        with pytest.raises(ModelFolderError, match=r"no model here .*train this stage first"):
            train_locally(make_run(stage, tmp_path, store, text), show_progress=False)
    with pytest.raises(UserError, match=r"tasks: sleeping not known; known tasks: .*workload"):
        train_locally(make_run("instruct", trained, store, text, tasks=["sleeping"], run_id="x"), show_progress=False)
    with pytest.raises(ConfigError, match=r"deepspeed needs Ray Train; use engine\.kind=torch"):
        run = make_run("tokenizer", tmp_path, store, text, engine={"kind": "deepspeed"})
        train_locally(run, show_progress=False)


def test_evaluation_writes_the_documented_results_and_counts_openings(
    trained: Path, tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEUROLM_GIT_COMMIT", "abc1234")
    model = trained / "instruct" / "model"
    digest = Store.open(store).digest
    values = {"model": model, "data": {"store": store}, "batch_size": 5}
    first = evaluate(build(EvaluateRun, {"out": tmp_path / "one", **values}, source="test"))
    second = evaluate(build(EvaluateRun, {"out": tmp_path / "two", **values}, source="test"))
    assert first.path == tmp_path / "one" / "results.json"
    written = json.loads(first.path.read_text())
    assert written == first.results
    assert written.keys() == RESULTS | {"language"}  # its runs read text
    assert (written["test_openings"], second.results["test_openings"]) == (1, 2)
    assert {**second.results, "test_openings": 1} == written
    assert (written["schema"], written["git_commit"], written["seed"]) == (1, "abc1234", 0)
    assert written["data_digest"] == digest
    assert written["config_digest"] == load_model(model, "neurolm").values["trained"]["config_digest"]
    assert list(written["tasks"]) == list(LABELS)
    for name, task in written["tasks"].items():
        assert task.keys() == TASK_RESULTS
        assert (task["split"], task["num_windows"], task["num_recordings"], task["num_subjects"]) == ("test", 12, 12, 6)
        assert (task["auc_pr"] is None) == (name == "hmc")
        low, high = task["balanced_accuracy_ci95"]
        assert 0 <= low <= task["balanced_accuracy"] <= high <= 1
        assert (tmp_path / "one" / "predictions" / f"{name}.parquet").is_file()
        assert task["released_protocol"] is None and name in (tmp_path / "one" / "evaluation.html").read_text()
    assert count_openings(digest) == 2


def test_results_tell_how_tasks_were_asked_where_it_matters(varied: Path, tmp_path: Path, store: Path) -> None:
    values = {"out": tmp_path, "data": {"store": store}, "model": varied / "instruct" / "model", "option_orders": 3}
    results = evaluate(build(EvaluateRun, values, source="test")).results
    told = {name: {key: task.get(key) for key in ("num_windows", "option_orders", "left_out")}
            for name, task in results["tasks"].items()}  # fmt: skip
    assert told == {
        "workload": {"num_windows": 12, "option_orders": None, "left_out": None},
        "hmc": {"num_windows": 12, "option_orders": 3, "left_out": None},
        "depth": {"num_windows": 9, "option_orders": 3, "left_out": {"W": 3}},
    }
    page = (tmp_path / "evaluation.html").read_text()
    for words in ("depth: windows left out by their label: W (3)", "means over 3 orders of the options", "perplexity"):
        assert words in page
    trained = load_model(varied / "instruct" / "model", "neurolm").values["trained"]
    for when, measured in (("before", trained["language_before"]), ("after", trained["validation"])):
        for name, value in results["language"][when].items():
            assert value == measured[f"language_{name}"] > 0
    kept = Predictions.load(tmp_path / "predictions" / "hmc.parquet")
    np.testing.assert_allclose(np.exp(kept.log_likelihoods).sum(1), 1)
    assert not rescore(tmp_path).changes


def test_the_released_protocol_stands_beside_ours_where_it_is_asked_for(
    trained: Path, tmp_path: Path, store: Path
) -> None:
    values = {"out": tmp_path, "data": {"store": store}, "model": trained / "instruct" / "model"}
    results = evaluate(build(EvaluateRun, values | {"released_protocol": True}, source="test")).results
    for name, task in results["tasks"].items():
        released = task["released_protocol"]
        assert {"balanced_accuracy", "accuracy", "unreadable_answer_rate"} < released.keys()
        assert ("roc_auc" in released) == (name == "workload") == ("cohen_kappa" not in released)
    rescored = rescore(tmp_path)
    assert not rescored.changes and not rescored.added
    assert count_openings(Store.open(store).digest) == 1


def test_an_untuned_model_is_not_evaluated_and_no_opening_is_spent(trained: Path, tmp_path: Path, store: Path) -> None:
    values = {"out": tmp_path, "data": {"store": store}, "model": trained / "pretrain" / "model"}
    with pytest.raises(UserError, match="a model of stage pretrain, tuned on no task; run stage 3"):
        evaluate(build(EvaluateRun, values, source="test"))
    with pytest.raises(ModelFolderError, match="expected a neurolm, found a tokenizer"):
        evaluate(build(EvaluateRun, values | {"model": trained / "tokenizer" / "model"}, source="test"))
    assert count_openings(Store.open(store).digest) == 0


def test_prediction_on_a_recording(trained: Path, demo_recordings: Path) -> None:
    path = demo_recordings / "workload" / "Subject01_2.edf"
    answer = predict_recording(trained / "instruct" / "model", path, "workload")
    assert answer.labels == LABELS["workload"]
    assert answer.start_s.tolist() == [2.0 * place for place in range(30)]  # 62 s, 4-s windows every 2 s
    np.testing.assert_allclose(answer.probabilities.sum(axis=1), 1)
    assert (answer.probabilities > 0).all()
    plain = json.loads(json.dumps(answer.as_dict()))
    assert plain["recording"] == pytest.approx(dict(zip(answer.labels, answer.probabilities.mean(0), strict=True)))
    assert len(plain["windows"]) == 30
    table = answer.table().splitlines()
    assert (table[0], len(table)) == (answer.question, 33)


def test_prediction_says_what_is_wrong(trained: Path, demo_recordings: Path, tmp_path: Path) -> None:
    path = demo_recordings / "workload" / "Subject01_2.edf"
    model = trained / "instruct" / "model"
    with pytest.raises(UserError, match="knows 2 tasks; choose one with --task: workload, hmc"):
        predict_recording(model, path)
    with pytest.raises(UserError, match="has no task 'tuab'; it knows workload, hmc"):
        predict_recording(model, path, "tuab")
    with pytest.raises(UserError, match="not tuned on any task; give the model of stage 3"):
        predict_recording(trained / "pretrain" / "model", path)
    with pytest.raises(UserError, match=r"Subject00_1\.edf.*truncated"):
        predict_recording(model, demo_recordings / "workload" / "Subject00_1.edf", "workload")
    with pytest.raises(UserError, match=r"absent\.edf"):
        predict_recording(model, tmp_path / "absent.edf", "workload")


def test_a_runs_own_config_file_builds_it_again(trained: Path, store: Path, text: Path) -> None:
    for stage, kind in STAGES.items():
        assert load(kind, trained / stage / "config.yaml") == make_run(stage, trained, store, text)


def test_a_question_of_ones_own_is_asked_like_a_task(
    trained: Path, demo_recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, model = demo_recordings / "workload" / "Subject01_2.edf", trained / "instruct" / "model"
    known = predict_recording(model, path, "workload")
    same = predict_recording(
        model, path, "workload", question=FreeQuestion("Is this EEG segment of high workload?", ("No", "Yes"))
    )
    assert same.labels == ("No", "Yes")
    np.testing.assert_array_equal(same.probabilities, known.probabilities)
    other = predict_recording(model, path, "workload", question=FreeQuestion("Is it hard?"))
    assert (other.question, other.labels) == ("Is it hard?", known.labels)
    assert not np.allclose(other.probabilities, known.probabilities)
    letters = ["--question", "Which?", "--options", "rest", "work", "--lettered", "--option-orders", "2"]
    main(["predict", str(model), str(path), "--task", "workload", *letters, "--json"])
    said = json.loads(capsys.readouterr().out)
    assert said["question"] == "Which?" and set(said["recording"]) == {"rest", "work"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--options", "No", "Yes"], "--options and --lettered are of a question of your own; say it with --question"),
        (["--question", "Hard?", "--lettered"], "--lettered: no options to list"),
        (["--question", "Hard?", "--options", "No", "No"], "an option comes twice"),
        (["--question", "Hard?", "--options", "No"], "--question: answers: Dictionary should have at least 2 items"),
        (["--question", "Hard?", "--options", "No", "No doubt"], "is the beginning of ' No doubt'"),
        (["--question", "Is it " + "very " * 60 + "hard?"], "positions, the language model has 64"),
        (["--option-orders", "0"], "--option-orders 0: expected 1 or more"),
    ],
)  # fmt: skip
def test_questions_that_cannot_be_asked_are_refused(
    arguments: list[str], message: str, trained: Path, demo_recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = demo_recordings / "workload" / "Subject01_2.edf"
    with pytest.raises(SystemExit, match="2"):
        main(["predict", str(trained / "instruct" / "model"), str(path), "--task", "workload", *arguments])
    assert message in capsys.readouterr().err


def test_a_question_of_ones_own_needs_to_know_whose_recording_it_is(trained: Path, demo_recordings: Path) -> None:
    path, model = demo_recordings / "workload" / "Subject01_2.edf", trained / "instruct" / "model"
    with pytest.raises(
        UserError, match=r"choose one with --task that says .* how the recording is read: workload, hmc"
    ):
        predict_recording(model, path, question=FreeQuestion("Hard?", ("No", "Yes")))
