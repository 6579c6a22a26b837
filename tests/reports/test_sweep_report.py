"""The report shows every trial, stands alone, says the same in three formats, and lets nothing through unescaped."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from neurolm.evaluation.predictions import TaskResult
from neurolm.reports.results import write_results
from neurolm.reports.sweep import SweepRecord, TrialRecord
from neurolm.reports.sweep_report import write_report
from neurolm.reports.sweep_sections import Material
from tests.reports.html_page import Page
from tests.reports.sweeps import SWEEP, TRIALS, confirmed, large_sweep


def written(tmp_path: Path, sweep: SweepRecord, **given: object) -> tuple[str, Page]:
    path = tmp_path / "report.html"
    given = {"command": "python ray_jobs/train.py best.yaml", "best_config": "seed: 1\n"} | given
    write_report(path, Material(sweep, **given))
    html = path.read_text()
    return html, Page(html)


def spaced(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_every_trial_is_shown(tmp_path: Path) -> None:
    _, page = written(tmp_path, SWEEP)
    rows = [attributes["id"] for tag, attributes in page.tags if tag == "tr" and "id" in attributes]
    assert rows == [f"trial-{number}" for number in range(5)]
    for words in ("0.7100", "0.0003", "stopped after 1 of 2", "loss <nan> & gone", "RayError: lost", "2 min 44 s"):
        assert words in page.words
    assert "5 (2 finished, 1 pruned, 2 failed)" in page.words
    assert "0.710 validation balanced_accuracy, mean over workload" in spaced(page.words)


def test_curves_tell_pruned_from_finished_by_their_style(tmp_path: Path) -> None:
    html, _ = written(tmp_path, SWEEP)
    curves = Page(
        html[html.index("aria-labelledby='curves'") - 9 : html.index("<section aria-labelledby='importances'")]
    )
    drawn = [kind for kind in curves.classes("polyline") if kind.startswith("curve")]
    assert sorted(drawn[4:]) == ["curve complete", "curve complete best", "curve pruned"]  # after the key
    assert re.search(r"\.curve\.pruned \{[^}]*stroke-dasharray", html)


SHAPES = {
    "by hand": SWEEP,
    "large": large_sweep(),
    "one task": large_sweep(tasks=("workload",)),
    "four tasks": large_sweep(tasks=("a", "b", "c", "d")),
    "running": large_sweep(is_finished=False, trials=[
        replace(trial, state="running" if trial.number > 23 else trial.state) for trial in large_sweep().trials
    ]),
    "small is good": large_sweep(mode="min"),
    "objectives": large_sweep(
        directions={"workload": "max", "hours": "min"},
        trials=[
            replace(trial, objectives={"workload": trial.best_value, "hours": trial.number / 7})
            for trial in large_sweep().trials
        ],
    ),
    "nothing": replace(SWEEP, trials=[], importances={}),
    "all failed": replace(SWEEP, trials=TRIALS[3:], importances={}),
    "one trial": replace(SWEEP, trials=TRIALS[:1], importances={}),
    "only pruned": replace(SWEEP, trials=TRIALS[2:3], importances={}),
    "equal values": replace(SWEEP, trials=[replace(TRIALS[0], number=number) for number in range(6)]),
}  # fmt: skip


@pytest.mark.parametrize("sweep", SHAPES.values(), ids=SHAPES.keys())
def test_a_report_is_made_of_any_sweep(tmp_path: Path, sweep: SweepRecord) -> None:
    html, page = written(tmp_path, sweep, confirmation=confirmed([0.6, None], [0.5, 0.6]))
    for tag, attributes in page.tags:
        assert "src" not in attributes and tag not in ("link", "iframe", "object")
        assert (attributes.get("href") or "#").startswith("#")
    assert not re.search(r"https?:|url\(|@import", html)
    assert not re.search(r"\$[a-z]", html)  # every place of the template is filled
    assert not re.search(r"[\">, ]nan\b", html) and "inf" not in re.findall(r"points=\"([^\"]*)", html)
    images = [attributes for tag, attributes in page.tags if tag == "svg" and attributes.get("aria-hidden") != "true"]
    assert all(image["role"] == "img" and image["aria-label"] for image in images)
    anchors = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = {attributes["href"].removeprefix("#") for tag, attributes in page.tags if tag == "a"}
    assert links <= anchors
    found = json.loads((tmp_path / "report.json").read_text())
    assert len(found["trials"]) == len(sweep.trials) and found["is_finished"] == sweep.is_finished
    text = (tmp_path / "report.md").read_text()
    assert all(
        len({line.count(" | ") for line in table.splitlines()}) == 1 for table in re.findall(r"(?m)(?:^\|.*\n)+", text)
    )
    assert sum(line.startswith("|") for line in text.splitlines()) > len(sweep.trials)


def test_where_the_reference_was_kept_best_yaml_is_said_to_be_its_config(tmp_path: Path) -> None:
    found = confirmed([0.61, 0.62, 0.63], [0.63, 0.65, 0.64], kept_seed=2, kept_arm="reference")
    _, page = written(tmp_path, large_sweep(), confirmation=found)
    words = spaced(page.words)
    assert "Fresh seeds say that the paper's setting is better; its config as it runs again" in words
    assert "run with seed 2 of the paper's setting" in words


def test_the_whole_report_of_a_large_sweep(tmp_path: Path) -> None:
    html, page = written(
        tmp_path, large_sweep(), confirmation=confirmed([0.63, 0.65, 0.64], [0.61, 0.62, 0.63], kept_seed=2)
    )
    titles = re.findall(r"<h2[^>]*>([^<]*)", html)
    assert titles == [
        "The best setting", "Confirmed on fresh seeds", "Results on the test split", "Optimisation history",
        "Learning curves", "Which setting mattered", "All settings at once", "Pairs of settings",
        "Each setting against the value reached", "Trade-offs between tasks", "When each task is best",
        "Pruned and finished, time and hours", "Failures", "Trials", "The config to run again",
    ]  # fmt: skip
    words = spaced(page.words)
    for said in ("0.640 ± 0.010", "0.620 ± 0.010", "better than the paper's setting on 3 of 3 seeds, by +0.020",
                 "no p-value of 3 seeds can fall below 0.25", "run with seed 2", "value not finite"):  # fmt: skip
        assert said in words
    text = (tmp_path / "report.md").read_text()
    assert all(said in text for said in ("0.640 ± 0.010", "| value not finite | 1 | 5 |", "seed: 1"))


def test_a_running_sweep_says_so(tmp_path: Path) -> None:
    _, page = written(tmp_path, SHAPES["running"], best_config=None)
    assert "The sweep has not ended" in page.words and "The config to run again" not in page.words
    assert json.loads((tmp_path / "report.json").read_text())["best"]["config"] is None


def test_what_others_wrote_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>\"&|"
    trial = replace(
        TRIALS[1], parameters={evil: evil}, reason=evil, origin=evil, task_curves={evil: [(1, 0.5)], "b": [(1, 0.6)]}
    )
    failed = replace(TRIALS[3], parameters={evil: evil + "2"}, reason=evil)
    sweep = SweepRecord(
        metric=evil, space={evil: evil}, trials=[trial, replace(trial, number=7, parameters={evil: 3}), failed],
        importances={evil: 1.0}, title=evil, budget_unit=evil, sampler=evil, pruner=evil,
    )  # fmt: skip
    results = {"tasks": {evil: TaskResult(evil, 1, 1, 1, 0.5, None, None, None, 0.0, 0.5, 0.0).as_dict()}}
    results |= {"test_openings": 1, "config_digest": evil, "seed": 0}
    html, _ = written(
        tmp_path, sweep, results=results, best_config=evil, command=evil,
        confirmation=confirmed([0.5], [None], reference=evil, reference_parameters={evil: evil}),
    )  # fmt: skip
    assert html.count("<script") == 1 and "alert('x')" not in html
    assert "<script" not in re.sub(r"(?s)```.*?```", "", (tmp_path / "report.md").read_text())


def test_results_and_config_are_shown(tmp_path: Path) -> None:
    task = TaskResult("test", 290, 10, 5, 0.617, (0.52, 0.7), 0.66, 0.64, 0.21, 0.6, 0.01)
    results = write_results(
        tmp_path / "results.json", {"workload": task}, config_digest="c0ffee", data_digest="da7a", git_commit=None,
        seed=0, test_openings=2,
    )  # fmt: skip
    _, page = written(tmp_path, SWEEP, results=results, best_config="optimizer:\n  learning_rate: 0.0003\n")
    for words in ("0.520 to 0.700", "290 / 10 / 5", "opened 2 times", "c0ffee", "commit unknown", "seed 0"):
        assert words in page.words
    assert "optimizer:\n  learning_rate: 0.0003\n" in page.words
    assert "python ray_jobs/train.py best.yaml" in page.words
    assert "0.617" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize("trials", [[], TRIALS[3:], TRIALS[2:3]])
def test_where_nothing_finished_the_report_says_so(tmp_path: Path, trials: list[TrialRecord]) -> None:
    _, page = written(tmp_path, replace(SWEEP, trials=trials, importances={}), best_config=None)
    assert f"No trial of {len(trials)} finished" in page.words
    assert "too few finished trials" in page.words
