"""The main job from recordings to results, small, on the shipped demo configs."""

import json
import runpy
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.filterwarnings("default")]
ROOT = Path(__file__).parents[2]
RESULT_KEYS = {
    "split", "num_windows", "num_recordings", "num_subjects", "balanced_accuracy", "balanced_accuracy_ci95", "auroc",
    "auc_pr", "cohen_kappa", "weighted_f1", "invalid_answer_rate", "auroc_ci95", "cohen_kappa_ci95", "weighted_f1_ci95",
    "undefined_auroc_draws", "labels", "confusion_matrix", "recall", "calibration", "subjects", "recordings",
    "centred_by_subject",
    "released_protocol",
}  # fmt: skip


def run_script(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["pipeline.py", *arguments])
    runpy.run_path(str(ROOT / "ray_jobs" / "pipeline.py"), run_name="__main__")


def test_pipeline_from_recordings_to_results(
    tmp_path: Path,
    demo_recordings: Path,
    ray_cluster: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    settings = [
        str(ROOT / "ray_jobs/configs/demo/pipeline.yaml"),
        f"out={out}", f"data.root={demo_recordings}", "synthetic=null",
        "tokenizer.epochs=1", "tokenizer.validations=1", "pretrain.epochs=1", "pretrain.validations=1",
        "pretrain.batch.text_size=0", "pretrain.workers=1", "tune.epochs=1", "tune.validations=2",
        "tune.sweep.num_trials=2", "tune.sweep.confirmation_seeds=1",
    ]  # fmt: skip
    run_script(monkeypatch, *settings)
    results = json.loads((out / "results.json").read_text())
    assert set(results) == {
        "schema", "tasks", "config_digest", "data_digest", "git_commit", "seed", "test_openings", "leakage"
    }  # fmt: skip
    assert set(results["tasks"]) == {"demo_workload", "demo_sleep"}
    for task in results["tasks"].values():
        assert set(task) == RESULT_KEYS
        assert task["split"] == "test" and task["num_subjects"] >= 1 and 0 <= task["balanced_accuracy"] <= 1
    assert results["test_openings"] == 1
    assert "1 quarantined" in capsys.readouterr().out
    assert "demo_sleep" in (out / "evaluation.html").read_text()
    page = (out / "report.html").read_text()
    assert "optimizer.learning_rate" in page and "<svg" in page and "Confirmed on fresh seeds" in page
    report = json.loads((out / "report.json").read_text())
    assert report["confirmation"]["seeds"] == [1] and report["confirmation"]["kept_seed"] == 1
    assert report["test_results"] == results and (out / "report.md").is_file()
    _check_mlflow_trials(out)
    stamp = (out / "tokenizer" / "model" / "manifest.json").stat().st_mtime_ns
    run_script(monkeypatch, *settings)
    assert (out / "tokenizer" / "model" / "manifest.json").stat().st_mtime_ns == stamp, "finished steps are skipped"
    assert json.loads((out / "results.json").read_text())["test_openings"] == 2


def _check_mlflow_trials(out: Path) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    (sweep,) = [run for run in runs if run.info.run_name == "sweep"]
    trials = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == sweep.info.run_id]
    names = sorted(run.info.run_name for run in trials)
    assert names == ["confirm-best-seed-1", "confirm-reference-seed-1", "trial-0000", "trial-0001"]
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED"}
    assert all("optimizer.learning_rate" in run.data.params for run in trials)
