from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from neurolm.config import build
from neurolm.datasets import LAYOUTS
from neurolm.datasets.assignment import assign, assign_all, count_folds, straddling_subjects
from neurolm.datasets.dataset import Assignment, SourceFile
from neurolm.datasets.splits import SplitConfig, SplitError


def source(subject: str, number: int = 0, label: str | None = None, folder: str | None = None) -> SourceFile:
    path = Path(f"{folder}/{subject}_s{number:03d}_{label}.edf")
    published = None if folder is None else "test" if folder == "eval" else "train"
    return SourceFile(path, path.as_posix(), subject, label, published_split=published)  # type: ignore[arg-type]


def sizes(assignment: Assignment) -> tuple[int, int, int]:
    found = Counter(split for _, split in assignment)
    return found["train"], found["val"], found["test"]


def splits_of(assignment: Assignment) -> dict[str, str]:
    return {source.subject: split for source, split in assignment}


TUAB = [source(f"a{n:03d}", 0, label, "train") for n in range(100) for label in ("normal", "abnormal")] + [
    source(f"e{n:03d}", 0, "normal", "eval") for n in range(20)
]


def test_tuab_keeps_the_publishers_test_subjects() -> None:
    layout = LAYOUTS["tuab"]
    for config in (SplitConfig(), SplitConfig(rule="paper")):
        assignment = assign(layout, TUAB, config)
        assert sizes(assignment) == (160, 40, 20)
        assert {s.subject[0] for s, split in assignment if split == "test"} == {"e"}
        assert not straddling_subjects(assignment)
    assert splits_of(assign(layout, TUAB[::-1], SplitConfig())) == splits_of(assign(layout, TUAB, SplitConfig()))


def test_tuab_released_draws_each_label_apart_and_says_what_that_does(caplog: pytest.LogCaptureFixture) -> None:
    assignment = assign(LAYOUTS["tuab"], TUAB, SplitConfig(rule="released"))
    assert sizes(assignment) == (160, 40, 20)
    for label in ("normal", "abnormal"):
        drawn = Counter(split for s, split in assignment if s.label == label and s.published_split == "train")
        assert drawn == {"train": 80, "val": 20}
    straddling = straddling_subjects(assignment)
    assert straddling > 0
    assert f"rule released puts {straddling} subjects into more than one split" in caplog.text


def test_other_rules_divide_tuab_by_subject() -> None:
    for config in (SplitConfig(rule="subject"), SplitConfig(folds=5), SplitConfig(counts=(80, 20, 20))):
        assignment = assign_all({"tuab": (LAYOUTS["tuab"], TUAB)}, config)["tuab"]
        assert not straddling_subjects(assignment)
        assert {s.subject[0] for s, split in assignment if split == "test"} > {"e"} or config.counts != "auto"


def test_a_person_of_several_sets_is_in_the_same_split_of_each() -> None:
    people = [source(f"aaaaa{n:03d}") for n in range(50)]
    by_set = [
        splits_of(assign(LAYOUTS[name], people, SplitConfig(rule="subject"))) for name in ("tuab", "tuev", "tusl")
    ]
    assert by_set[0] == by_set[1] == by_set[2]
    assert LAYOUTS["tueg"].people == LAYOUTS["tuab"].people == LAYOUTS["tuab_pickles"].people is not None


def test_tuev_one_training_subject_in_five_validates() -> None:
    files = [source(f"a{n:03d}", k, None, "train") for n in range(50) for k in range(2)]
    files += [source(f"{n:03d}", 0, None, "eval") for n in range(10)]
    for rule in ("paper", "released"):
        assignment = assign(LAYOUTS["tuev"], files, SplitConfig(rule=rule))  # type: ignore[arg-type]
        assert sizes(assignment) == (80, 20, 10)
        assert not straddling_subjects(assignment)


def test_tusl_released_goes_by_file_test_before_validation() -> None:
    files = [source(f"a{n:03d}", k) for n in range(5) for k in range(2)]
    assignment = assign(LAYOUTS["tusl"], files, SplitConfig(rule="released"))
    assert [split for _, split in assignment] == ["train"] * 6 + ["test"] * 2 + ["val"] * 2
    odd = [source("a", k) for k in range(7)]
    assert [split for _, split in LAYOUTS["tusl"].released_split(odd)] == ["train"] * 4 + ["test"] + ["val"] * 2
    with pytest.raises(SplitError, match="data set tusl: the paper states no split"):
        assign(LAYOUTS["tusl"], files, SplitConfig(rule="paper"))


def hmc_files() -> list[SourceFile]:
    """151 files; three numbers are missing, here 10, 20 and 120."""
    return [source(f"SN{number:03d}") for number in range(1, 155) if number not in (10, 20, 120)]


def test_hmc_numbers_in_the_paper_are_positions_in_the_code() -> None:
    assert sizes(assign(LAYOUTS["hmc"], hmc_files(), SplitConfig(rule="paper"))) == (98, 25, 28)
    released = assign(LAYOUTS["hmc"], hmc_files(), SplitConfig(rule="released"))
    assert sizes(released) == (100, 25, 26)
    assert splits_of(released) == splits_of(assign(LAYOUTS["hmc"], hmc_files(), SplitConfig()))
    assert splits_of(released)["SN102"] == "train"


def test_workload_released_goes_by_file() -> None:
    files = [source(f"Subject{n:02d}", k) for n in range(36) for k in (1, 2)]
    released = assign(LAYOUTS["workload"], files, SplitConfig(rule="released"))
    assert released == assign(LAYOUTS["workload"], files, SplitConfig(rule="paper"))
    assert released == assign(LAYOUTS["workload"], files, SplitConfig())
    assert sizes(released) == (52, 10, 10)
    assert straddling_subjects(LAYOUTS["workload"].released_split(files[1:])) == 2  # one missing file moves the borders


def test_seed_is_split_by_clip_and_so_in_parts() -> None:
    files = [source(str(n), session) for n in range(1, 16) for session in (1, 2, 3)]
    assignment = assign(LAYOUTS["seed"], files, SplitConfig(rule="paper"))
    assert sizes(assignment) == (45, 45, 45)
    assert straddling_subjects(assignment) == 15
    assert len({s.recording for s, _ in assignment}) == 135
    assert all(s.part == split for s, split in assignment)
    by_subject = assign(LAYOUTS["seed"], files, SplitConfig())
    assert sizes(by_subject) == (27, 9, 9)
    assert all(s.part is None for s, _ in by_subject)


def test_a_published_split_that_comes_out_empty_is_refused() -> None:
    files = [source(f"Subject{n:02d}", k) for n in range(31) for k in (1, 2)]
    for rule in ("paper", "released"):
        with pytest.raises(SplitError, match=rf"rule {rule} leaves nothing for test of the 62 files present.*auto"):
            assign(LAYOUTS["workload"], files, SplitConfig(rule=rule))  # type: ignore[arg-type]
    with pytest.raises(SplitError, match="rule subject leaves nothing for"):
        assign(LAYOUTS["workload"], files[:4], SplitConfig(rule="subject"))
    assert sizes(assign(LAYOUTS["workload"], files, SplitConfig())) == (42, 10, 10)


def fold(found: dict[str, list[SourceFile]], layout: str, **settings: object) -> dict[str, Assignment]:
    config = build(SplitConfig, {"folds": 3, **settings}, source="x")
    return assign_all({name: (LAYOUTS[layout], sources) for name, sources in found.items()}, config)


def test_a_person_of_several_sets_is_in_the_same_part_of_a_fold() -> None:
    found = {"eyes": [source(f"a{n}") for n in range(4)], "fists": [source(f"a{n}") for n in range(9)]}
    for number in range(3):
        assigned = fold(found, "motor_imagery", fold=number)
        eyes, fists = splits_of(assigned["eyes"]), splits_of(assigned["fists"])
        assert eyes.items() <= fists.items()
        assert set(eyes.values()) == set(fists.values()) == {"train", "val", "test"}


def test_folds_within_the_training_and_validation_subjects_leave_the_test_subjects_out() -> None:
    files = [source(f"Subject{n:02d}", k) for n in range(36) for k in (1, 2)]
    outer = splits_of(assign(LAYOUTS["workload"], files, SplitConfig()))
    tested: Counter[str] = Counter()
    for number in range(3):
        inner = splits_of(fold({"workload": files}, "workload", fold=number, within="train_and_val")["workload"])
        assert set(inner) == {subject for subject, split in outer.items() if split != "test"}
        tested.update(subject for subject, split in inner.items() if split == "test")
    assert len(tested) == 31 and set(tested.values()) == {1}


def test_whoever_is_left_out_of_one_set_is_left_out_of_all() -> None:
    found = {"few": [source(f"a{n}") for n in range(6)], "many": [source(f"a{n}") for n in range(12)]}
    assigned = fold(found, "motor_imagery", within="train_and_val")
    assert len(splits_of(assigned["few"])) == 5 and len(splits_of(assigned["many"])) == 9
    assert "a5" not in splits_of(assigned["many"])  # last of the few, though only tenth to twelfth of the many go


def test_declared_splits_stay_but_within_them_are_folds() -> None:
    declared = [replace(source(f"a{n}"), split=split) for n, split in enumerate(["train"] * 6 + ["test"] * 2)]  # type: ignore[arg-type]
    free = [source(f"b{n}") for n in range(6)]
    assigned = fold({"mine": declared + free}, "motor_imagery")["mine"]
    assert [split for one, split in assigned if one.split is not None] == ["train"] * 6 + ["test"] * 2
    inner = splits_of(fold({"mine": declared}, "motor_imagery", within="train_and_val")["mine"])
    assert sorted(inner) == [f"a{n}" for n in range(6)] and set(inner.values()) == {"train", "val", "test"}


def test_folds_that_cannot_be() -> None:
    people = {"workload": [source(f"a{n}") for n in range(4)]}
    with pytest.raises(SplitError, match="5 folds of 4 subjects"):
        fold(people, "workload", folds=5)
    with pytest.raises(SplitError, match="fold 4 is not one of 4"):
        fold(people, "workload", folds="loso", fold=4)
    with pytest.raises(SplitError, match="loso folds of 2 subjects"):
        fold({"workload": people["workload"][:2]}, "workload", folds="loso")
    found = {name: (LAYOUTS["workload"], sources) for name, sources in people.items()}
    assert count_folds(found, SplitConfig(folds="loso")) == 4
