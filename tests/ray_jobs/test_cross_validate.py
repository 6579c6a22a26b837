"""The cross-validation job with real stages, tiny, on the shipped demo steps."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.filterwarnings("default")]
ROOT = Path(__file__).parents[2]
DEMO = ROOT / "ray_jobs/configs/demo"


def run_script(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["cross_validate.py", *arguments])
    runpy.run_path(str(ROOT / "ray_jobs" / "cross_validate.py"), run_name="__main__")


def test_two_folds_from_recordings_to_a_page(
    tmp_path: Path, demo_recordings: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = ("preprocess", "tokenizer", "pretrain", "instruct", "evaluate")
    values = {
        "base": str(DEMO / "data.yaml"),
        "steps": {step: str(DEMO / f"{step}.yaml") for step in steps},
        "cross_validation": {"folds": 2, "seeds": [0], "concurrent_runs": 2},
    }
    config, out = tmp_path / "cross_validate.yaml", tmp_path / "out"
    config.write_text(yaml.safe_dump(values))
    settings = [
        str(config), f"out={out}", f"data.root={demo_recordings}", "evaluate.released_protocol=false",
        "tokenizer.epochs=1", "tokenizer.validations=1", "pretrain.epochs=1", "pretrain.validations=1",
        "pretrain.batch.text_size=0", "workers=1", "instruct.epochs=1", "instruct.validations=2", "instruct.keep=ranks",
    ]  # fmt: skip
    run_script(monkeypatch, *settings)
    results = json.loads((out / "results.json").read_text())
    store = json.loads((out / "folds" / "fold-1" / "store" / "manifest.json").read_text())
    for name, task in results["tasks"].items():
        windows = store["windows_by_label"][name]
        assert task["split"] == "kfold" and task["num_windows"] == sum(windows.values())
    assert [run["fold"] for run in results["cross_validation"]["runs"]] == [0, 1]
    assert results["test_openings"] == 1
    page = (out / "cross_validation.html").read_text()
    assert "demo_sleep" in page and "When tasks peak" in page
    run_script(monkeypatch, *settings)
    assert json.loads((out / "results.json").read_text()) == results, "finished folds are neither run nor opened again"
