"""From recordings to a table: what is written is what an evaluation writes, and the test split is opened once."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from neurolm.baselines.settings import BaselineRun
from neurolm.cli import main
from neurolm.config import UserError, as_dict, build
from neurolm.datasets.ingest import plan_downstream, run_locally, write_store
from neurolm.eeg.shards import Store, count_openings
from neurolm.reports.baseline_table import read_table
from neurolm.reports.baselines import baseline_digest, run_baselines
from neurolm.reports.compare import compare_runs
from neurolm.reports.rescore import rescore
from tests.reports.evaluated import answers, write_evaluated


@pytest.fixture
def run(tmp_path: Path, demo_recordings: Path) -> BaselineRun:
    values = {
        "out": str(tmp_path / "out"),
        "data": {"root": str(demo_recordings), "sets": {"demo_workload": {"layout": "workload", "folder": "workload"}}},
        "baselines": ["majority", "band_power", "cnn_transformer"],
        "training": {"epochs": 1, "batch_size": 16, "validations": 1, "optimizer": {"learning_rate": 1e-3}},
    }
    run = build(BaselineRun, values, source="test")
    write_store(plan_downstream(run.data, run.store), run.store, run_locally)
    return run


def test_baselines_stand_beside_each_other_and_are_used_like_models(
    run: BaselineRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "baselines.yaml"
    config.write_text(yaml.safe_dump(as_dict(run)))
    main(["baseline", str(config), "--json"])
    said = capsys.readouterr()
    assert "band_power  demo_workload: fitted in" in said.err
    rows = {row["system"]: row for row in json.loads(said.out)["rows"]}
    assert list(rows) == ["majority", "band_power", "cnn_transformer"]
    assert json.loads((run.out / "baselines" / "table.json").read_text())["rows"] == list(rows.values())
    assert rows["majority"]["balanced_accuracy"] == 0.5 < 0.8 < rows["band_power"]["balanced_accuracy"]
    assert rows["cnn_transformer"]["num_parameters"] > 3e6 and rows["cnn_transformer"]["validation_score"] is not None
    digest = Store.open(run.store).digest
    assert count_openings(digest) == 1  # for all of them
    assert {row["test_openings"] for row in rows.values()} == {1}
    markdown = (run.out / "baselines" / "table.md").read_text()
    assert "| band_power | log band power, logistic regression | 96 | - |" in markdown
    assert "No interval: fewer than five subjects." in markdown

    folders = [run.out / "baselines" / name for name in ("majority", "band_power")]
    comparison = compare_runs(*folders).tasks["demo_workload"]
    assert comparison.balanced_accuracy.difference == pytest.approx(rows["band_power"]["balanced_accuracy"] - 0.5)
    assert not rescore(folders[1]).changes
    results = json.loads((folders[1] / "results.json").read_text())
    assert (results["data_digest"], results["config_digest"]) == (digest, baseline_digest(run, "band_power"))
    assert count_openings(digest) == 1


def test_a_later_run_adds_to_the_table_and_other_data_is_left_out(run: BaselineRun) -> None:
    table = run_baselines(build(BaselineRun, as_dict(run) | {"baselines": ["band_power"]}, source="test"))
    assert [row.system for row in table.rows] == ["band_power"]
    digest = Store.open(run.store).digest
    write_evaluated(run.out, replace(answers(1.0), task="demo_workload"), digest=digest)
    write_evaluated(run.out / "baselines" / "eegnet", answers(1.0), digest="other")
    table = run_baselines(build(BaselineRun, as_dict(run) | {"baselines": ["majority"]}, source="test"))
    assert [row.system for row in table.rows] == ["NeuroLM", "majority", "band_power"]
    assert [row.test_openings for row in table.rows] == [1, 2, 1]
    assert f"{run.out / 'baselines' / 'eegnet'} is of other data" in table.markdown()
    assert read_table(run.out, digest) == table


def test_nothing_is_opened_where_something_cannot_be_fitted(run: BaselineRun) -> None:
    with pytest.raises(UserError, match="no model here"):
        run_baselines(build(BaselineRun, as_dict(run) | {"baselines": ["majority", "linear_probe"]}, source="test"))
    assert count_openings(Store.open(run.store).digest) == 0
    assert not (run.out / "baselines").exists()
    with pytest.raises(UserError, match="no baseline was evaluated here"):
        read_table(run.out)


def test_digests_follow_what_a_fit_depends_on(run: BaselineRun) -> None:
    other = build(BaselineRun, as_dict(run) | {"training_of": {"ffcl": {"epochs": 7}}}, source="test")
    assert baseline_digest(run, "ffcl") != baseline_digest(other, "ffcl")
    for name in ("majority", "band_power", "cnn_transformer"):
        assert baseline_digest(run, name) == baseline_digest(other, name)
    seeded = build(BaselineRun, as_dict(run) | {"seed": 1}, source="test")
    assert baseline_digest(run, "band_power") != baseline_digest(seeded, "band_power")
