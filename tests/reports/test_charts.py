"""Scales and labels, by hand."""

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from neurolm.reports.charts import Scale, band, mark, number, stairs, text, with_room


def test_a_scale_maps_ends_to_pixels() -> None:
    scale = Scale(0.5, 0.9, 100, 500)
    assert (scale(0.5), scale(0.7), scale(0.9)) == (100, pytest.approx(300), 500)
    logarithmic = Scale(1e-5, 1e-3, 0, 200, is_log=True)
    assert logarithmic(1e-4) == pytest.approx(100)


@pytest.mark.parametrize(
    ("scale", "ticks"),
    [
        (Scale(0.51, 0.74, 0, 1), [0.55, 0.6, 0.65, 0.7]),
        (Scale(-1, 1, 0, 1), [-1, -0.5, 0, 0.5, 1]),
        (Scale(8e-6, 3e-3, 0, 1, is_log=True), [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3]),
        (Scale(1.5, 7, 0, 1, is_log=True), [2, 5]),
    ],
)
def test_ticks_are_round_and_few(scale: Scale, ticks: list[float]) -> None:
    assert scale.ticks() == pytest.approx(ticks)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
@example([15.0])  # seven multiples of 0.5 lie on 13.5 to 16.5, both ends included
def test_every_value_lies_on_its_scale(values: list[float]) -> None:
    scale = Scale.around(values, 60, 600)
    assert all(60 <= scale(value) <= 600 for value in values)
    assert len(scale.ticks()) <= 6


def test_labels_never_overlap_and_the_first_keeps_its_place() -> None:
    places = with_room([100.0, 104.0, 101.0, 50.0], 13)
    assert places[0] == 100.0 and places[3] == 50.0 and None in places
    kept = sorted(place for place in places if place is not None)
    assert all(high - low >= 13 for low, high in itertools.pairwise(kept))


def test_stairs_keep_their_height_until_the_next_point() -> None:
    assert 'points="0.0,9.0 5.0,9.0 5.0,4.0 8.0,4.0"' in stairs([(0, 9), (5, 4)], 8, "x")
    assert stairs([], 8, "x") == ""


def test_marks_differ_without_colour() -> None:
    shapes = {
        mark(0, 0, kind).partition(" ")[0] + mark(0, 0, kind).partition(" d=")[2]
        for kind in ("complete", "pruned", "failed")
    }
    assert len(shapes) == 3


def test_text_is_escaped() -> None:
    assert "&lt;b&gt;" in text(0, 0, "<b>") and "&lt;b&gt;" in mark(0, 0, "pruned", "<b>")


@pytest.mark.parametrize(("value", "said"), [(3e-4, "0.0003"), (1.234e-5, "1.23e-05"), (6.0, "6"), (0.12345, "0.123")])
def test_numbers_are_short(value: float, said: str) -> None:
    assert number(value) == said


def test_a_band_goes_out_along_one_line_and_back_along_the_other() -> None:
    assert 'points="0.0,1.0 5.0,2.0 5.0,8.0 0.0,9.0"' in band([(0, 1), (5, 2)], [(0, 9), (5, 8)], "x")
