from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurolm import config as configs
from neurolm.config import ConfigError, assign, flatten, load, override, parse_overrides, read
from neurolm.training.runs import TokenizerRun, load_run

TOKENIZER = """
stage: tokenizer
out: results
epochs: 3
batch: {size: 4}
optimizer: {learning_rate: 6e-4}
"""

names = st.text("abc_", min_size=1, max_size=3)
settings = st.recursive(
    st.one_of(st.integers(), st.text(max_size=3), st.none(), st.lists(st.integers(), max_size=2)),
    lambda inner: st.dictionaries(names, inner, min_size=1, max_size=3),
    max_leaves=8,
)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "tokenizer.yaml", TOKENIZER)


@given(st.dictionaries(names, settings, max_size=3))
def test_flat_settings_assigned_one_by_one_are_the_settings(values: dict[str, Any]) -> None:
    rebuilt: dict[str, Any] = {}
    for name, value in flatten(values).items():
        assert not isinstance(value, dict)
        assign(rebuilt, name, value)
    assert rebuilt == values


def test_assign_makes_missing_sections_and_replaces_values_by_sections() -> None:
    values: dict[str, Any] = {"optimizer": None, "out": "here"}
    assign(values, "optimizer.beta1", 0.8)
    assign(values, "data.split.counts", "auto")
    assert values == {"optimizer": {"beta1": 0.8}, "out": "here", "data": {"split": {"counts": "auto"}}}


def test_base_files_lend_settings_and_own_settings_win(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    write(tmp_path / "ground.yaml", "seed: 1\nout: ground\nbatch: {size: 4, text_size: 2}\n")
    write(tmp_path / "shared" / "data.yaml", "base: ../ground.yaml\nout: data\nworkers: 2\n")
    top = write(tmp_path / "top.yaml", "base: shared/data.yaml\nworkers: 3\nbatch: {size: 8}\n")
    assert read(top) == {"seed": 1, "out": "data", "workers": 3, "batch": {"size": 8, "text_size": 2}}


def test_a_file_in_a_circle_of_bases_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "base: b.yaml\n")
    write(tmp_path / "b.yaml", "base: a.yaml\n")
    with pytest.raises(ConfigError, match=r"a\.yaml: base: a file cannot be its own base"):
        read(tmp_path / "a.yaml")


def test_quick_settings_hold_for_the_quick_budget_only_and_overrides_win(tmp_path: Path) -> None:
    text = TOKENIZER + "quick: {epochs: 1, optimizer.beta1: 0.5}\n"
    path = write(tmp_path / "tokenizer.yaml", text)
    full = load_run(path)
    quick = load_run(path, {"budget": "quick"})
    assert (full.epochs, full.optimizer.beta1) == (3, 0.9)
    assert (quick.epochs, quick.optimizer.beta1, quick.optimizer.learning_rate) == (1, 0.5, 6e-4)
    assert load_run(path, {"budget": "quick", "epochs": 7}).epochs == 7
    in_file = write(tmp_path / "quick.yaml", text + "budget: quick\n")
    assert load_run(in_file).epochs == 1
    assert load_run(in_file, {"budget": "full"}).epochs == 3


def test_numbers_that_yaml_takes_for_text(path: Path) -> None:
    assert load_run(path).optimizer.learning_rate == 0.0006
    assert load_run(path, parse_overrides(["optimizer.learning_rate=3e-4"])).optimizer.learning_rate == 0.0003


def test_overrides_are_yaml(path: Path) -> None:
    found = parse_overrides(["epochs=2", "data.split.counts=[1, 1, 1]", "run_id=", "out=a=b", "seed= 3"])
    assert found == {"epochs": 2, "data.split.counts": [1, 1, 1], "run_id": None, "out": "a=b", "seed": 3}
    run = load_run(path, found)
    assert (run.epochs, run.data.split.counts, run.out, run.seed) == (2, (1, 1, 1), Path("a=b"), 3)


@pytest.mark.parametrize(
    ("argument", "message"),
    [("epochs", "has no value; write it as"), ("=3", "has no value"), ("epochs=[1", "not valid YAML")],
)
def test_what_is_no_override_is_refused(argument: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_overrides([argument])


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("epoch", "epoch: no such setting; did you mean 'epochs'"),
        ("optimizer.learning_rat", "optimizer.learning_rat: no such setting; did you mean 'learning_rate'"),
        ("data.preprocessing.low", "data.preprocessing.low: no such setting; did you mean 'low_hz'"),
        ("data.sets.mine.layuot", "data.sets.mine.layuot: no such setting; did you mean 'layout'"),
        ("data.privacy.zzz", "data.privacy.zzz: no such setting; known settings: key_file"),
    ],
)
def test_a_misspelt_setting_names_the_file_and_the_nearest(path: Path, name: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_run(path, {name: 3})
    assert f"{path}: {hint}" in str(caught.value)


def test_a_misspelt_setting_of_an_engine_is_looked_up_in_that_engine(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"engine\.deepspeed\.zero_stag: no such setting; did you mean 'zero_stage'"):
        load_run(path, {"engine": {"kind": "deepspeed", "zero_stag": 1}})
    with pytest.raises(ConfigError, match=r"engine\.torch\.zero_stage: no such setting; known settings: kind"):
        load_run(path, {"engine": {"kind": "torch", "zero_stage": 1}})
    with pytest.raises(ConfigError, match=r"engine: .*'jax'.*'torch', 'deepspeed'"):
        load_run(path, {"engine.kind": "jax"})


def test_another_kind_replaces_a_section_wherever_it_is_said(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", TOKENIZER + "engine: {kind: deepspeed, zero_stage: 2}\n")
    torch = write(tmp_path / "torch.yaml", "base: base.yaml\nengine: {kind: torch}\n")
    same = write(tmp_path / "same.yaml", "base: base.yaml\nengine: {kind: deepspeed, reduce_bucket_size: 5}\n")
    assert read(torch)["engine"] == {"kind": "torch"}
    assert read(same)["engine"] == {"kind": "deepspeed", "zero_stage": 2, "reduce_bucket_size": 5}
    assert read(same, {"engine.kind": "torch"})["engine"] == {"kind": "torch"}
    assert read(same, {"engine.kind": "deepspeed"}) == read(same)
    # In whatever order they are given, and although they are given beside a whole section.
    given = {"engine.zero_stage": 3, "engine.kind": "deepspeed", "engine": {"kind": "torch"}}
    for order in (given, dict(reversed(given.items()))):
        assert read(torch, order)["engine"] == {"kind": "deepspeed", "zero_stage": 3}
    assert override(load_run(same), {"engine.kind": "torch"}).engine.kind == "torch"


def test_every_mistake_of_a_file_is_told_at_once(path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_run(path, {"epochs": "many", "batch.size": 0, "workres": 2})
    first, second, third = sorted(str(caught.value).splitlines())
    assert first == f"{path}: batch.size: Input should be greater than 0 (found 0)"
    assert second.startswith(f"{path}: epochs: Input should be a valid integer")
    assert second.endswith("(found 'many')")
    assert third == f"{path}: workres: no such setting; did you mean 'workers'?"


def test_a_required_setting_that_is_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "run.yaml", TOKENIZER.replace("epochs: 3", ""))
    with pytest.raises(ConfigError, match=r"run\.yaml: epochs: this setting is required and missing"):
        load_run(path)


def test_settings_that_do_not_fit_together(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer\.yaml: batch\.size 4 is too small for 3 workers; use 6 or more"):
        load_run(path, {"workers": 3})


def test_an_unknown_stage_lists_the_known_ones(path: Path) -> None:
    with pytest.raises(ConfigError, match="stage: found 'tokeniser', expected one of tokenizer, pretrain, instruct"):
        load_run(path, {"stage": "tokeniser"})


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "no such config file"), ("a: [", "not valid YAML"), ("- a\n", "expected settings .*found list")],
)
def test_files_that_hold_no_settings(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "run.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=rf"run\.yaml: {message}"):
        read(path)


def test_locations_are_paths_or_file_uris(path: Path) -> None:
    assert load_run(path, {"out": "file:///data/runs"}).out == Path("/data/runs")
    assert load_run(path, {"out": "runs/x"}).out == Path("runs/x")
    with pytest.raises(ConfigError, match=r"tokenizer\.yaml: data\.root: s3:// is not supported; mount the bucket"):
        load_run(path, {"data.root": "s3://bucket/recordings"})


def test_a_config_is_frozen_and_comes_back_from_its_own_yaml(path: Path, tmp_path: Path) -> None:
    run = load_run(path, {"engine": {"kind": "deepspeed", "zero_stage": 2}, "data.split.counts": [2, 1, 1]})
    with pytest.raises(AttributeError):
        run.epochs = 4  # type: ignore[misc]
    assert load_run(write(tmp_path / "copy.yaml", configs.as_yaml(run))) == run


def test_override_validates_again(path: Path) -> None:
    run = load(TokenizerRun, path)
    changed = override(run, {"optimizer.learning_rate": 1e-3, "model.hidden_size": 48, "model.num_heads": 4})
    assert (changed.optimizer.learning_rate, changed.model.hidden_size, run.model.hidden_size) == (1e-3, 48, 768)
    with pytest.raises(ConfigError, match=r"optimizer\.learning_rate: Input should be greater than 0"):
        override(run, {"optimizer.learning_rate": -1.0})


def test_digest_follows_values_not_their_order(path: Path) -> None:
    assert configs.digest({"a": 1, "b": {"c": 2, "d": 3}}) == configs.digest({"b": {"d": 3, "c": 2}, "a": 1})
    assert configs.digest(load_run(path)) == configs.digest(load_run(path, {"seed": 0}))
    assert configs.digest(load_run(path)) != configs.digest(load_run(path, {"seed": 1}))
