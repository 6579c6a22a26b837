"""What a run id stands for, and what may change between two starts of it."""

from pathlib import Path

import pytest

from neurolm.config import ConfigError, build, override
from neurolm.text.instructions import TaskError
from neurolm.training.runs import InstructRun, TokenizerRun
from neurolm.training.training_run import training_digest
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


def instruct(tmp_path: Path, **changes: object) -> InstructRun:
    values = {"out": tmp_path, "data": {"store": tmp_path}, "epochs": 1, "batch": {"size": 4},
              "optimizer": {"learning_rate": 1e-3}, "tasks": ["workload", "hmc"]}  # fmt: skip
    return build(InstructRun, values | changes, source="test")


def test_dotted_names_reach_how_tasks_are_asked_and_weighed(tmp_path: Path) -> None:
    run = override(
        instruct(tmp_path),
        {
            "task_settings.hmc.shuffle_options": True,
            "task_settings.workload.metric": "auroc",
            "losses.task_weights.hmc": 0.5,
            "mixture.weights.hmc": 2,
            "mixture.weights.workload": 1,
            "mixture.fraction": 0.1,
            "batch.text_ratio": 0.5,
        },
    )
    workload, hmc = run.asked_tasks
    assert (workload.metric, workload.shuffle_options) == ("auroc", False)
    assert (hmc.metric, hmc.shuffle_options) == (None, True)
    assert (run.losses.task_weights, run.mixture.fraction, run.batch.num_crops) == ({"hmc": 0.5}, 0.1, 2)
    assert (run.held_out_crops, instruct(tmp_path).held_out_crops) == (16, 0)
    assert override(run, {"corpus.held_out_crops": 3}).held_out_crops == 3
    assert training_digest(override(run, {"corpus.held_out_crops": 3})) == training_digest(run)


@pytest.mark.parametrize("name", ["task_settings", "losses.task_weights"])
def test_settings_of_a_task_that_the_run_has_not_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{name}: tuev not among the run's tasks, workload, hmc"):
        override(instruct(tmp_path), {f"{name}.tuev": {} if name == "task_settings" else 1.0})
    with pytest.raises(TaskError, match="own_task not known"):
        _ = instruct(tmp_path, tasks=["own_task"]).asked_tasks
