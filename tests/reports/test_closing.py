"""The report is made from whatever lies in a folder of results."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from neurolm.cli import main
from neurolm.reports.closing import write_sweep_report
from tests.reports.sweeps import SWEEP, confirmed


def read(out: Path) -> dict:
    return json.loads((out / "report.json").read_text())


def test_no_sweep_no_report(tmp_path: Path) -> None:
    assert write_sweep_report(tmp_path) is None and not list(tmp_path.iterdir())


def test_a_report_grows_with_what_there_is(tmp_path: Path) -> None:
    SWEEP.save(tmp_path / "tune" / "sweep.json")
    path = write_sweep_report(tmp_path)
    assert path == tmp_path / "report.html"
    assert read(tmp_path)["confirmation"] is None and read(tmp_path)["best"]["config"] is None
    confirmed([0.6], [0.5], kept_seed=1).save(tmp_path / "tune" / "confirmation.json")
    (tmp_path / "best.yaml").write_text("seed: 1\n")
    write_sweep_report(tmp_path)
    assert read(tmp_path)["confirmation"]["kept_seed"] == 1
    assert read(tmp_path)["best"]["command"] == f"python ray_jobs/train.py {tmp_path}/best.yaml run_id=again"
    assert (tmp_path / "report.md").read_text().startswith("# Sweep of the instruction tuning")


def test_an_earlier_config_is_no_config_of_a_running_sweep(tmp_path: Path) -> None:
    (tmp_path / "best.yaml").write_text("seed: 1\n")
    write_sweep_report(tmp_path, replace(SWEEP, is_finished=False))
    assert read(tmp_path)["best"]["config"] is None


@pytest.mark.parametrize("place", [".", "tune"])
def test_the_command_takes_either_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str) -> None:
    SWEEP.save(tmp_path / "tune" / "sweep.json")
    main(["report", str(tmp_path / place)])
    assert capsys.readouterr().out.split() == [f"{tmp_path}/report{kind}" for kind in (".html", ".md", ".json")]
