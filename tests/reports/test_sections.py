"""One content, two renderings."""

from neurolm.reports.sections import Figure, Section, Table, contents, score, signed
from tests.reports.html_page import Page

TABLE = Table("Scores", ["task", "value", "why"], [["a|b", "0.5", "x <b>\n"], ["c", "1", ""]], words=2)


def test_a_table_keeps_its_columns_in_markdown() -> None:
    lines = TABLE.markdown().splitlines()
    assert lines[1] == "| :--- | ---: | :--- |"
    assert lines[2] == "| a\\|b | 0.5 | x &lt;b>  |" and lines[3] == "| c | 1 |   |"


def test_numbers_behind_a_picture_are_behind_a_line() -> None:
    hidden = Table("Numbers", ["a"], [["1"]], is_open=False)
    assert Page(hidden.html()).tags[0][0] == "details" and "<details" not in TABLE.html()


def test_a_section_in_both() -> None:
    section = Section("place", "A & B", ["words <i>"], ["run it"], [Figure(["<svg></svg>"], "caption")], [TABLE])
    page = Page(section.html())
    assert ("h2", {"id": "place"}) in page.tags and "words <i>" in page.words and "caption" in page.words
    text = section.markdown()
    assert text.startswith("## A & B\n\nwords &lt;i>\n\n```\nrun it\n```\n\nScores:\n\n| task")
    assert '<a href="#place"' in contents([section]).replace("'", '"')


def test_a_section_of_pictures_only_is_not_in_markdown() -> None:
    assert Section("a", "A", figures=[Figure(["<svg></svg>"], "b")]).markdown() == ""
    assert Figure([], "nothing").html() == ""
    assert "grid-of-charts" in Figure(["<svg></svg>", "<svg></svg>"], "two").html()


def test_scores_in_tables() -> None:
    assert (score(None), score(0.51234), signed(0.5, 0.6), signed(None, 1.0)) == ("-", "0.5123", "-0.1000", "-")
