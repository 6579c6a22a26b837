"""The neurolm command as a user meets it, in this process and without Ray."""

import sys
from pathlib import Path

import pytest

from neurolm.cli import main
from neurolm.datasets.ingest import DataConfig, plan_downstream, run_locally, write_store
from neurolm.datasets.workload import Workload
from tests.eeg.edf import write_edf

CONFIGS = Path(__file__).parents[1] / "ray_jobs" / "configs"
PIPELINE = CONFIGS / "workload" / "pipeline.yaml"
SMALL = [f"{step}.batch.{name}" for step in ("tokenizer", "pretrain", "tune") for name in ("size=4", "text_size=0")]


@pytest.fixture(autouse=True)
def no_ray_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def init(*arguments: object, **settings: object) -> None:
        raise AssertionError("Ray would have been started")

    monkeypatch.setattr(ray, "init", init)


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The last line said by a command that ends with exit code 2."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    *before, said = capsys.readouterr().err.splitlines()
    assert said.startswith("error: ")
    assert "Traceback" not in "".join(before)
    return said


def check(config: Path, *settings: str) -> list[str]:
    return ["check", str(config), *settings]


def test_a_pipeline_is_checked_from_recordings_to_instruction_tuning(
    demo_recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    main(check(PIPELINE, f"data.root={demo_recordings / 'workload'}", f"out={out}", *SMALL))
    said = capsys.readouterr().out.splitlines()
    files = ["preprocess", "tokenizer", "tokenize", "pretrain", "tune", "evaluate"]
    assert said[:6] == [f"{CONFIGS / 'workload' / name}.yaml: settings valid" for name in files]
    assert said[6].startswith("data set workload: 5 recordings read")
    assert "would be quarantined" in said[7]
    assert "Subject00_1.edf" in said[7]
    assert [line.split(":")[0] for line in said[8:]] == ["stage tokenizer", "stage pretrain", "stage instruct"]
    assert all("trainable parameters, loss" in line for line in said[8:])
    assert not out.exists()  # a check leaves nothing behind


def test_a_pipeline_with_tokens_is_checked_with_tokens(
    demo_recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a place of its own, whatever the config says about where tokens lie."""
    places = [f"data.root={demo_recordings / 'workload'}", f"out={tmp_path / 'out'}", f"data.token_store={tmp_path}"]
    main(check(PIPELINE, "data.tokens=bfloat16", *places, *SMALL))
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said[-4:]] == [
        "stage tokenizer", "token_store", "stage pretrain", "stage instruct"
    ]  # fmt: skip
    assert "windows in bfloat16" in said[-3]
    assert "windows without tokens (test split" in said[-3]
    assert list(tmp_path.iterdir()) == []
    assert "data.tokens: Input should be 'none', 'bfloat16' or 'float32' (found 'float16')" in refused(
        check(PIPELINE, "data.tokens=float16", *places), capsys
    )


def test_tokens_are_asked_for_and_need_a_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(CONFIGS / "workload" / "tokenize.yaml")
    assert "data.tokens is none; set data.tokens=" in refused(["tokenize", config, f"out={tmp_path}"], capsys)
    assert "no model here" in refused(["tokenize", config, f"out={tmp_path}", "data.tokens=float32"], capsys)


def test_real_recordings_are_checked(test_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = CONFIGS / "workload" / "preprocess.yaml"
    main(check(config, f"data.root={test_data / 'eegmat'}", f"out={tmp_path}"))
    said = capsys.readouterr().out.splitlines()
    assert said == [f"{config}: settings valid", "data set workload: 6 recordings read, preprocessed and cut"]


def test_a_demo_that_has_no_recordings_yet_is_fine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(check(CONFIGS / "demo" / "pipeline.yaml", f"data.root={tmp_path / 'later'}", f"out={tmp_path}"))
    assert "is not there yet; the pipeline writes synthetic recordings to it" in capsys.readouterr().out


def test_a_stage_is_checked_for_leakage(
    demo_recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, store = tmp_path / "recordings", tmp_path / "store"
    root.mkdir()
    for subject in (1, 2, 3):
        (root / f"Subject0{subject}_2.edf").symlink_to(demo_recordings / "workload" / f"Subject0{subject}_2.edf")
    config = CONFIGS / "workload" / "tokenizer.yaml"
    settings = [f"out={tmp_path}", "batch.size=4", "batch.text_size=0"]
    write_store(plan_downstream(DataConfig(root=root), store), store, run_locally)
    main(check(config, *settings))
    assert f"{store}: nothing of its test split is trained on" in capsys.readouterr().out
    (root / "Subject01_1.edf").symlink_to(demo_recordings / "workload" / "Subject03_2.edf")  # a test recording
    write_store(plan_downstream(DataConfig(root=root), store), store, run_locally)
    assert "test recordings with a signal in both: 1" in refused(check(config, *settings), capsys)
    main(check(config, *settings, "data.allow_leakage=a try"))
    assert f"{store}: leakage allowed (a try), test recordings trained on: 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        ("pipeline", ["tokenizer.epoch=3"], "tokenizer.yaml: epoch: no such setting; did you mean 'epochs'?"),
        ("pipeline", ["tokenise.epochs=3"], "pipeline.yaml: tokenise: no such setting"),
        ("pipeline", ["tune.sweep.num_trial=3"], "tune.yaml: sweep.num_trial: no such setting; did you mean"),
        ("pipeline", ["data.rot=x"], "preprocess.yaml: data.rot: no such setting; did you mean 'root'?"),
        ("tokenizer", ["model.hiden_size=8"], "tokenizer.yaml: model.hiden_size: no such setting; did you mean"),
        ("tune", ["optimizer.learning_rates=8"], "tune.yaml: optimizer.learning_rates: no such setting"),
        ("evaluate", ["modl=x"], "evaluate.yaml: modl: no such setting"),
        ("absent", [], "absent.yaml: no such config file"),
        ("pipeline", [], "data.root is not set; give the folder of your recordings: data.root=DIR"),
        ("pipeline", ["data.root=/absent/eegmat"], "/absent/eegmat: no such folder"),
        ("pipeline", ["data.root=s3://bucket"], "preprocess.yaml: data.root: s3:// is not supported"),
        ("tokenizer", ["data.store=/absent/store"], "/absent/store: this store does not exist; make it with"),
    ],
)
def test_a_mistake_is_one_message(
    config: str, settings: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(check(CONFIGS / "workload" / f"{config}.yaml", f"out={tmp_path}", *settings), capsys)


@pytest.mark.parametrize(
    ("names", "unit", "scale", "message"),
    [
        (("EEG Fpz1", *Workload().channels[1:]), "uV", 1, "channel 'EEG Fp1' is missing; the file has 'EEG Fpz1'"),
        (Workload().channels, "mV", 1, "the unit in the header is probably wrong"),
        (Workload().channels, "bananas", 1, "has no known physical dimension (expected uV, mV or V)"),
    ],
    ids=["unknown channel", "wrong unit", "no unit"],
)
def test_recordings_that_cannot_be_used_are_named(
    names: tuple[str, ...], unit: str, scale: float, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for subject in (1, 2, 3):
        write_edf(tmp_path / f"Subject{subject:02d}_1.edf", names, duration_s=61, unit=unit, scale=scale)
    said = refused(check(PIPELINE, f"data.root={tmp_path}", f"out={tmp_path / 'out'}"), capsys)
    assert "Subject01_1.edf" in said
    assert message in said


def test_a_stage_is_trained_and_a_recording_predicted_from_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = CONFIGS / "workload" / "pretrain.yaml"
    assert "pretrain.yaml: epoch: no such setting" in refused(["train", str(config), "epoch=1"], capsys)
    assert "this store does not exist" in refused(["train", str(config), f"out={tmp_path}"], capsys)
    assert "stage: found None, expected one of" in refused(["train", str(PIPELINE)], capsys)
    assert "no model here" in refused(["predict", str(tmp_path), "recording.edf"], capsys)
    assert "no sweep has begun here" in refused(["report", str(tmp_path)], capsys)


def test_check_without_ray_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "neurolm.distributed.check", raising=False)
    monkeypatch.setitem(sys.modules, "neurolm.distributed.pipeline", None)
    assert "neurolm[cluster]" in refused(check(PIPELINE), capsys)
