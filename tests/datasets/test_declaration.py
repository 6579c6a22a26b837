from pathlib import Path
from typing import Any

import pytest
import yaml

from neurolm.config import ConfigError, as_dict, build, load, override, parse_overrides
from neurolm.datasets.declaration import Declaration, read_declaration
from neurolm.datasets.ingest import DataSetConfig, Step, layout_described, layout_of

OWN: dict[str, Any] = {
    "name": "own",
    "files": "*.edf",
    "subject": "prefix",
    "label": "suffix",
    "labels": {1: "rest", 2: "arithmetic"},
    "mains_hz": 50,
    "windows": {"length_s": 4},
}


def write(path: Path, values: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A config two folders away from the declaration that its base names."""
    write(tmp_path / "sets" / "own.yaml", OWN)
    sets = {"mine": {"layout": "folder", "declaration": "../sets/own.yaml"}}
    write(tmp_path / "shared" / "data.yaml", {"out": "x", "data": {"root": "r", "sets": sets}})
    return write(tmp_path / "run.yaml", {"base": "shared/data.yaml"})


def declaration(step: Step) -> Declaration:
    found = step.data.sets["mine"].declaration
    assert found is not None
    return found


def test_a_declaration_lies_where_the_file_that_names_it_says(run: Path) -> None:
    own = declaration(load(Step, run))
    assert own == read_declaration(run.parent / "sets" / "own.yaml")
    assert own.labels == {"1": "rest", "2": "arithmetic"}
    assert own.classes == ("rest", "arithmetic")


def test_dotted_overrides_reach_into_it_or_replace_it(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "data.sets.mine.declaration"
    inside = parse_overrides([f"{name}.windows.stride_s=2", f"{name}.labels={{'1': calm}}"])
    changed = declaration(load(Step, run, inside))
    assert (changed.windows.length_s, changed.windows.stride_s, changed.classes) == (4, 2, ("calm",))
    write(run.parent / "other.yaml", OWN | {"name": "other"})
    monkeypatch.chdir(run.parent)
    other = declaration(load(Step, run, {name: "other.yaml", f"{name}.windows.last_s": 60}))
    assert (other.name, other.windows.last_s) == ("other", 60)
    quick = write(run.parent / "quick.yaml", {"base": "run.yaml", "quick": {f"{name}.windows.stride_s": 3}})
    assert declaration(load(Step, quick, {"budget": "quick"})).windows.stride_s == 3


def test_another_declaration_replaces_that_of_the_base_whole(run: Path) -> None:
    write(run.parent / "other.yaml", {**OWN, "name": "other", "windows": {"length_s": 2}, "title": "Other"})
    sets = {"mine": {"declaration": "other.yaml"}}
    own_windows = OWN | {"windows": {"length_s": 4, "stride_s": 1}}
    write(run.parent / "sets" / "own.yaml", own_windows)
    over = write(run.parent / "over.yaml", {"base": "shared/data.yaml", "data": {"sets": sets}})
    assert declaration(load(Step, over)) == read_declaration(run.parent / "other.yaml")


def test_it_is_saved_sent_and_varied_with_the_config(run: Path) -> None:
    step = load(Step, run)
    assert build(Step, as_dict(step), "again") == step
    assert declaration(override(step, {"data.sets.mine.declaration.windows.length_s": 8})).windows.length_s == 8
    assert str(run.parent) not in str(as_dict(declaration(step)))  # the same data set wherever its file lies
    described = step.data.sets["mine"].described
    assert layout_described(described, "model") == layout_of(step.data.sets["mine"])
    assert layout_described("workload", "model").name == "workload"
    assert DataSetConfig(layout="workload").described == "workload"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"windws": 1}, "windws: no such setting; did you mean 'windows'?"),
        ({"windows": {"lenght_s": 4}}, "windows.lenght_s: no such setting; did you mean 'length_s'?"),
        ({"windows": {"length_s": 2.5}}, "windows.length_s: Input should be a valid integer"),
        ({"windows": {"length_s": 4, "around": "evnts"}}, "windows.around: Input should be 'file' or 'events'"),
        ({"windows": {"length_s": 4, "last_s": 60, "stop_s": 90}}, "windows: last_s counts from the end"),
        ({"windows": {"length_s": 4, "start_s": 9, "stop_s": 8}}, "windows: stop_s 8 is not behind start_s 9"),
        ({"windows": {"stride_s": 4}}, "windows: stride_s needs length_s"),
        ({"windows": {"length_s": 4, "offset_s": 1}}, "windows: events and offset_s are for around: events"),
        ({"windows": {"length_s": 4, "around": "events", "last_s": 9}}, "windows: last_s is for around: file"),
        ({"mains_hz": "fifty"}, "mains_hz: Input should be a valid number"),
        ({"label": None}, "labels: label and labels belong together"),
        ({"label": "event"}, "label: event needs windows.around: events"),
        ({"labels": {1: True}}, "labels: YAML reads this as True; put it in quotes"),
        ({"split": "fold", "splits": {"a": "trian"}}, "splits.a: Input should be 'train', 'val' or 'test'"),
        ({"path": "(?P<subject"}, "path: not a regular expression"),
        ({"files": []}, "files: give either `files`"),
        ({"bids": {}}, "files: give either `files`"),
        ({"channels": {"1": "FPP1"}}, "channels: channel 'FPP1' is not in the electrode vocabulary; nearest: FP1"),
        ({"reference": "averge"}, "reference: channel 'averge' is not in the electrode vocabulary"),
        ({"reference": ["A1"], "channels": ["EEG A1", "Cz"]}, "reference: A1 cannot be a channel too"),
        ({"events": {"text": "value"}}, "events is only read with windows.around: events"),
        ({"arrays": {"unit": "pV"}}, "arrays.unit"),
    ],
)
def test_mistakes_name_the_file_the_key_and_the_fix(run: Path, change: dict[str, Any], message: str) -> None:
    path = write(run.parent / "sets" / "own.yaml", OWN | change)
    for read in (lambda: read_declaration(path), lambda: load(Step, run)):
        with pytest.raises(ConfigError) as caught:
            read()
        assert f"own.yaml: {message}" in str(caught.value)
    assert "run.yaml: data.sets.mine.declaration: " in str(caught.value)


@pytest.mark.parametrize(
    ("data_set", "message"),
    [
        ({"layout": "folder"}, "layout: folder needs `declaration`"),
        ({"layout": "workload", "declaration": OWN}, "layout: workload has no `declaration`"),
        ({"layout": "bids", "declaration": OWN}, "layout: bids: this data set: bids is for layout: bids alone"),
    ],
)
def test_layout_and_declaration_belong_together(data_set: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(DataSetConfig, data_set, source="x")


def test_a_declaration_that_is_not_there(run: Path) -> None:
    (run.parent / "sets" / "own.yaml").unlink()
    with pytest.raises(ConfigError, match=r"own\.yaml: no such config file"):
        load(Step, run)
