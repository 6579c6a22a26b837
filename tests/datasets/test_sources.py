from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurolm.datasets import LAYOUTS
from neurolm.datasets.sources import OPEN_SETS, SourceError, of_first_subjects, open_set, parse_sums

SUM = "ab" * 32


def test_the_published_list_of_eegmat(test_data: Path) -> None:
    sums = parse_sums((test_data / "eegmat" / "SHA256SUMS.txt").read_text(), "eegmat")
    assert len(sums) == 75
    assert sums["RECORDS"] == "c5786ce9f3b980d56f1ac4c4052271b49f5d9339082464e03b1855f88da9264b"
    assert {record for record in (test_data / "eegmat" / "RECORDS").read_text().split()} <= set(sums)
    two = of_first_subjects(sums, OPEN_SETS["workload"], 2)
    assert sorted(two) == [
        "README.txt", "RECORDS", "Subject00_1.edf", "Subject00_2.edf", "Subject01_1.edf", "Subject01_2.edf",
        "subject-info.csv",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "line", [f"{SUM} a b/c.edf", f"{SUM}  a b/c.edf", f"{SUM.upper()} *a b/c.edf", f"{SUM} a b/c.edf\r"]
)
def test_lines_as_they_are_written(line: str) -> None:
    assert parse_sums(f"\n{line}\n", "list") == {"a b/c.edf": SUM}


@pytest.mark.parametrize("text", [f"{SUM[:-1]} a", f"{SUM}", f"{SUM} ", "", "<html>", f"{SUM} a\n{'cd' * 32} a"])
def test_other_lines_are_refused(text: str) -> None:
    with pytest.raises(SourceError):
        parse_sums(text, "list")


@given(st.text(alphabet=st.sampled_from("abc./\\: ~*\0\n"), min_size=1, max_size=12))
def test_whatever_is_accepted_stays_in_the_folder(path: str) -> None:
    try:
        sums = parse_sums(f"{SUM} {path}", "list")
    except SourceError:
        return
    for accepted in sums:
        assert not PurePosixPath(accepted).is_absolute()
        assert Path("/folder", accepted).resolve().is_relative_to("/folder")
        assert Path("/folder", accepted).resolve() != Path("/folder")


@pytest.mark.parametrize(
    ("name", "path", "subject"),
    [
        ("eegmmidb", "S001/S001R04.edf", "S001"),
        ("eegmmidb", "S001/S001R04.edf.event", "S001"),
        ("hmc", "recordings/SN012_sleepscoring.txt", "SN012"),
        ("hmc", "recordings/SN012.edf", "SN012"),
        ("siena", "PN00/PN00-1.edf", "PN00"),
        ("siena", "PN00/Seizures-list-PN00.txt", "PN00"),
    ],
)
def test_subjects_are_found_in_paths(name: str, path: str, subject: str) -> None:
    match = OPEN_SETS[name].subject.search(path)
    assert match is not None
    assert match[1] == subject
    assert OPEN_SETS[name].subject.search("SHA256SUMS.txt") is None


@pytest.mark.parametrize(("name", "layout"), [("workload", "workload"), ("eegmmidb", "motor_imagery"), ("hmc", "hmc")])
def test_pages_are_those_that_the_layouts_name(name: str, layout: str) -> None:
    assert open_set(name).page == LAYOUTS[layout].url
    assert open_set(name).licence == LAYOUTS[layout].licence
