"""The page shows every trial, stands alone, and lets nothing through unescaped."""

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from neurolm.evaluation.predictions import TaskResult
from neurolm.reports.results import write_results
from neurolm.reports.sweep import SweepError, SweepRecord, TrialRecord, write_report

TRIALS = [
    TrialRecord(
        0, {"epochs": 2, "optimizer.learning_rate": 1e-5}, "complete", None, [(1, 0.51), (2, 0.55)], 0.55, 61.0
    ),
    TrialRecord(1, {"epochs": 4, "optimizer.learning_rate": 3e-4}, "complete", None, [(1, 0.6), (2, 0.71)], 0.71, 64.0),
    TrialRecord(
        2, {"epochs": 3, "optimizer.learning_rate": 1e-3}, "pruned", "stopped after 1 of 2", [(1, 0.74)], 0.74, 30.0
    ),
    TrialRecord(
        3, {"epochs": 3, "optimizer.learning_rate": 1.0}, "failed", "loss <nan> & gone", [(1, math.nan)], math.nan, 9.0
    ),
    TrialRecord(4, {"epochs": 3, "optimizer.learning_rate": 2.0}, "failed", "RayError: lost", [], None, None),
]
SWEEP = SweepRecord(
    metric="validation balanced_accuracy, mean over workload",
    space={"optimizer.learning_rate": "log_uniform [1e-05, 2]", "epochs": "integer [2, 4]"},
    trials=TRIALS,
    importances={"optimizer.learning_rate": 0.8, "epochs": 0.2},
    num_validations=2,
)
VOID = {"meta", "wbr", "link", "br", "img", "input"}


class Page(HTMLParser):
    """Checks that tags are balanced and collects what the tests ask for."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.words += data

    def classes(self, tag: str) -> list[str]:
        return [attributes.get("class") or "" for name, attributes in self.tags if name == tag]


def written(
    tmp_path: Path, sweep: SweepRecord, results: dict | None = None, config: str = "seed: 1\n"
) -> tuple[str, Page]:
    path = tmp_path / "report.html"
    write_report(path, sweep, results, config)
    html = path.read_text()
    return html, Page(html)


def test_the_best_trial_had_the_full_budget() -> None:
    assert SWEEP.best is TRIALS[1]  # not the pruned one with 0.74
    assert replace(SWEEP, mode="min").best is TRIALS[0]
    assert replace(SWEEP, trials=TRIALS[2:]).best is None


def test_every_trial_is_shown(tmp_path: Path) -> None:
    _, page = written(tmp_path, SWEEP)
    rows = [attributes["id"] for tag, attributes in page.tags if tag == "tr" and "id" in attributes]
    assert rows == [f"trial-{number}" for number in range(5)]
    for words in ("0.7100", "0.0003", "stopped after 1 of 2", "loss <nan> & gone", "RayError: lost", "2 min 44 s"):
        assert words in page.words
    assert "5 (2 finished, 1 pruned, 2 failed)" in page.words
    assert "0.710 validation balanced_accuracy, mean over workload" in re.sub(r"\s+", " ", page.words)


def test_curves_tell_pruned_from_finished_by_their_style(tmp_path: Path) -> None:
    html, page = written(tmp_path, SWEEP)
    lines = page.classes("polyline")
    legend = 4
    assert sorted(lines[legend:]) == ["curve complete", "curve complete best", "curve pruned", "curve so-far"]
    assert re.search(r"\.curve\.pruned \{[^}]*stroke-dasharray", html)
    crosses = [shape for shape in page.classes("path") if shape == "mark pruned"]
    assert len(crosses) == 1 + 1 + 1 + 1 + 2  # legend, curve, history, table, two settings


def test_the_page_stands_alone_and_is_described(tmp_path: Path) -> None:
    html, page = written(tmp_path, SWEEP)
    for _, attributes in page.tags:
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    assert not re.search(r"https?:|url\(|@import", html)
    images = [attributes for tag, attributes in page.tags if tag == "svg" and attributes.get("aria-hidden") != "true"]
    assert len(images) == 3 + len(SWEEP.space) and all(
        image["role"] == "img" and image["aria-label"] for image in images
    )
    assert not re.search(r"\$[a-z]", html)  # every place of the template is filled


def test_what_others_wrote_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>\"&"
    trial = replace(TRIALS[1], parameters={evil: evil}, reason=evil)
    sweep = SweepRecord(
        metric=evil,
        space={evil: evil},
        trials=[trial],
        importances={evil: 1.0},
        title=evil,
        budget_unit=evil,
        command=evil,
    )
    results = {"tasks": {evil: TaskResult(evil, 1, 1, 1, 0.5, None, None, None, 0.0, 0.5, 0.0).as_dict()}}
    html, _ = written(tmp_path, sweep, results | {"test_openings": 1, "config_digest": evil, "seed": 0}, evil)
    assert html.count("<script") == 1 and "alert('x')" not in html


def test_results_and_config_are_shown(tmp_path: Path) -> None:
    task = TaskResult("test", 290, 10, 5, 0.617, (0.52, 0.7), 0.66, 0.64, 0.21, 0.6, 0.01)
    results = write_results(
        tmp_path / "results.json", {"workload": task}, config_digest="c0ffee", data_digest="da7a", git_commit=None,
        seed=0, test_openings=2,
    )  # fmt: skip
    _, page = written(tmp_path, SWEEP, results, "optimizer:\n  learning_rate: 0.0003\n")
    for words in ("0.520 to 0.700", "290 / 10 / 5", "opened 2 times", "c0ffee", "commit unknown", "seed 0"):
        assert words in page.words
    assert "optimizer:\n  learning_rate: 0.0003\n" in page.words
    assert f"python ray_jobs/train.py {tmp_path}/best.yaml" in page.words


@pytest.mark.parametrize("trials", [[], TRIALS[3:], TRIALS[2:3], TRIALS[:1]])
def test_a_page_is_made_of_any_sweep(tmp_path: Path, trials: list[TrialRecord]) -> None:
    _, page = written(tmp_path, replace(SWEEP, trials=trials, importances={}))
    assert ("finished; the reasons" in page.words) == (not any(trial.state == "complete" for trial in trials))
    assert "too few finished trials" in page.words


def test_a_record_survives_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "tune" / "sweep.json"
    SWEEP.save(path)
    loaded = SweepRecord.load(path)
    assert replace(loaded, trials=[]) == replace(SWEEP, trials=[])
    assert loaded.trials[:3] == TRIALS[:3] and loaded.trials[3].points == [] and loaded.trials[3].best_value is None


def test_several_objectives_have_a_front() -> None:
    values = [(0.5, 0.9), (0.6, 0.8), (0.5, 0.8), (0.6, 0.8)]
    trials = [
        replace(TRIALS[1], number=number, objectives={"sleep": sleep, "workload": workload})
        for number, (sleep, workload) in enumerate(values)
    ]
    sweep = replace(SWEEP, trials=[*trials, TRIALS[0], TRIALS[4]], directions={"sleep": "max", "workload": "max"})
    assert [trial.number for trial in sweep.front] == [0, 1, 3]
    assert [trial.number for trial in replace(sweep, directions={"sleep": "min", "workload": "max"}).front] == [0]


def test_what_a_trial_cost_survives_the_disk(tmp_path: Path) -> None:
    trial = replace(
        TRIALS[1], task_curves={"sleep": [(1, 0.6), (2, 0.7)]}, rungs=[(1, 0.6)], starts=3, gpu_hours=1.5, cpu_hours=2.0
    )
    sweep = replace(SWEEP, trials=[trial], full_budget=1e6, sampler="TPE", directions={"score": "max"})
    sweep.save(tmp_path / "sweep.json")
    assert SweepRecord.load(tmp_path / "sweep.json") == sweep
    assert sweep.budget == 1e6 and SWEEP.budget == 2


@pytest.mark.parametrize(
    "text", ["", "[]", '{"schema": 1}', '{"schema": 2, "trials": []}', '{"schema": 1, "trials": [{"number": 1}]}']
)
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(SweepError, match=r"sweep\.json"):
        SweepRecord.load(tmp_path / "sweep.json")


def test_an_unknown_state_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of complete, pruned, failed"):
        replace(TRIALS[0], state="TERMINATED")
