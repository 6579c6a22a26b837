"""The page shows every subject and class, stands alone, and lets nothing through unescaped."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neurolm.evaluation.calibration import calibration
from neurolm.evaluation.predictions import Predictions
from neurolm.reports import evaluation_charts
from neurolm.reports.evaluated import read_evaluated
from neurolm.reports.evaluation_page import write_evaluation_page
from tests.reports.evaluated import answers, write_evaluated
from tests.reports.html_page import Page


def written(tmp_path: Path, *found: Predictions) -> tuple[str, Page]:
    evaluated = read_evaluated(write_evaluated(tmp_path, *found))
    html = write_evaluation_page(tmp_path / "evaluation.html", evaluated.results, evaluated.predictions).read_text()
    return html, Page(html)


def sleep(num_subjects: int = 6) -> Predictions:
    """Three classes, all in every recording."""
    n = 6 * num_subjects
    likelihoods = np.random.default_rng(1).normal(size=(n, 3))
    return Predictions(
        task="sleep", labels=("W", "N1", "<R>"), positive_class=None, split="test", row=np.arange(n),
        recording=np.array([f"r{index // 6}" for index in range(n)], object),
        subject=np.array([f"s{index // 6}" for index in range(n)], object), start_s=np.arange(n) * 30.0,
        label_index=np.tile([0, 1, 2], 2 * num_subjects), log_likelihoods=likelihoods, greedy_valid=np.ones(n, bool),
    )  # fmt: skip


def test_every_task_has_its_section(tmp_path: Path) -> None:
    html, page = written(tmp_path, answers(1.0), sleep())
    for words in ("workload", "sleep", "per recording", "Expected calibration error", "median", "s00", "s5", "<R>"):
        assert words in page.words
    assert "no one answer a recording" in page.words and "(12 recordings)" in page.words
    curves = page.classes("polyline")
    assert sum("class-" in one for one in curves) == 2 * (1 + 3)  # a key and a curve for each class that is ranked
    assert len(re.findall(r"class='confusion'", html)) == 2


def test_the_page_stands_alone(tmp_path: Path) -> None:
    html, page = written(tmp_path, sleep())
    assert not re.search(r"https?:|url\(|@import|<script", html)
    assert not re.search(r"\$[a-z]", html)
    images = [attributes for tag, attributes in page.tags if tag == "svg" and attributes.get("aria-hidden") != "true"]
    assert len(images) == 3 and all(image["role"] == "img" and image["aria-label"] for image in images)


def test_what_others_wrote_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>"
    html, _ = written(tmp_path, answers(1.0, subject=np.array([evil] * 48, object)))
    assert "<script" not in html


def test_the_released_protocol_has_its_own_name(tmp_path: Path) -> None:
    asked = replace(answers(1.0), released_answer=np.ones(48, int), released_text=np.array([" Yes"] * 48, object))
    _, page = written(tmp_path, asked)
    assert "By the released protocol" in page.words and "unreadable answer rate 0.000" in page.words


@pytest.mark.parametrize("num_subjects", [1, 6, 300])
def test_all_subjects_lie_inside_the_picture(num_subjects: int) -> None:
    svg = evaluation_charts.subjects(answers(0.5, num_subjects=num_subjects))
    width, height = map(float, re.search(r'viewBox="0 0 (\d+) (\d+)"', svg).groups())
    discs = [tuple(map(float, pair)) for pair in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', svg)]
    assert len(discs) == num_subjects and height < 1000
    assert all(0 < x < width and 0 < y < height for x, y in discs)
    assert [x for x, _ in sorted(discs, key=lambda disc: disc[1])] == sorted((x for x, _ in discs), reverse=True)


def test_discs_of_calibration_lie_where_their_bins_are() -> None:
    sure = np.log([[0.9, 0.1]] * 48)
    svg = evaluation_charts.reliability(calibration(answers(0.0, log_likelihoods=sure)))
    ((x, y),) = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', svg)
    left, right, bottom, top = 62, 430 - 24, 380 - 46, 14
    assert float(x) == pytest.approx(left + 0.9 * (right - left), abs=0.1)
    assert float(y) == pytest.approx(bottom + 0.5 * (top - bottom), abs=0.1)


def test_a_class_alone_has_no_roc_curve() -> None:
    assert "Only one class occurs" in evaluation_charts.roc(answers(1.0, label_index=np.zeros(48, int)))
