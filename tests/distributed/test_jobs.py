"""What a job script refuses before it starts Ray."""

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from neurolm.config import ConfigError
from neurolm.distributed import jobs
from neurolm.distributed.jobs import check_paths_under_job, run_job
from neurolm.distributed.pipeline import read_pipeline

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "ray_jobs" / "configs" / "workload" / "pipeline.yaml"
SCRIPTS = ["cross_validate", "preprocess", "tokenize_eeg", "train", "tune", "evaluate", "pipeline"]


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that gets as far as Ray fails here."""

    def started() -> None:
        raise AssertionError("Ray would have been started")

    monkeypatch.setattr(jobs, "ray_session", started)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)


@pytest.fixture
def under_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", '{"runtime_env": {}}')


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What is said on standard error by a job that ends with exit code 2."""

    def main(path: Path, overrides: dict[str, Any]) -> None:
        raise AssertionError("the job would have run")

    with pytest.raises(SystemExit) as caught:
        run_job(main, "usage", arguments)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize(
    ("name", "value"),
    [("out", "runs/x"), ("data.root", "recordings"), ("data.pretraining_root", "../more"), ("data.store", "store")],
)
def test_a_relative_place_under_a_job_is_refused(
    name: str, value: str, under_job: None, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"data.root": "/recordings", "out": "file:///results", name: value}
    said = refused([str(CONFIG), *(f"{key}={place}" for key, place in settings.items())], capsys)
    assert f"{name}: found the relative path '{value}'" in said
    assert f"{name}=/absolute/path" in said


def test_the_files_own_relative_out_is_refused_too(under_job: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert "out: found the relative path 'runs/workload'" in refused([str(CONFIG), "data.root=/recordings"], capsys)


@pytest.mark.parametrize("out", ["/results", "file:///results", "~/results"])
def test_absolute_places_and_uris_are_taken(out: str, under_job: None) -> None:
    values = {"out": out, "data": {"root": "/recordings", "store": None}}
    if out.startswith("~"):  # nothing expands it: it would be a folder named ~ in the copy
        with pytest.raises(ConfigError, match="relative path '~/results'"):
            check_paths_under_job(values)
    else:
        check_paths_under_job(values)


def test_relative_places_are_fine_outside_a_job() -> None:
    check_paths_under_job({"out": "runs/x", "data": {"root": "recordings"}})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.yaml"], "absent.yaml: no such config file"),
        ([str(CONFIG), "out"], "override 'out' has no value"),
        ([str(CONFIG), "out=[1"], "override 'out=[1' is not valid YAML"),
    ],
)
def test_mistakes_end_with_exit_code_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(arguments, capsys)


def test_no_script_stands_in_front_of_the_standard_library() -> None:
    """A script's folder is searched first, so that tokenize.py would be imported where inspect wants Python's."""
    found = {path.stem for path in (ROOT / "ray_jobs").glob("*.py")}
    assert found == set(SCRIPTS)
    assert not found & sys.stdlib_module_names


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_tells_its_usage(
    script: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments, code in (([], 2), (["--help"], 0)):
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *arguments])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(ROOT / "ray_jobs" / f"{script}.py"), run_name="__main__")
        assert caught.value.code == code
        assert f"python ray_jobs/{script}.py" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"epochs": 3}, r"pipeline\.yaml: epochs: no such setting; a pipeline has out, seed"),
        ({"steps.tokenise": "tokenizer.yaml"}, r"pipeline\.yaml: steps: tokenise not known; known steps: preprocess"),
        ({"tokenizer": 3}, r"pipeline\.yaml: tokenizer: found 3, expected settings of that step"),
        ({"out": "s3://bucket/x"}, r"pipeline\.yaml: out: s3:// is not supported; mount the bucket"),
        ({"synthetic.num_subject": 7}, r"synthetic\.num_subject: no such setting; did you mean 'num_subjects'"),
        ({"synthetic.num_subjects": 2}, r"synthetic\.num_subjects: .*greater than or equal to 6"),
    ],
)
def test_mistakes_in_a_pipeline_name_the_file(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_pipeline(CONFIG, overrides)


@pytest.mark.ray
def test_processes_of_a_session_know_its_address(ray_cluster: None) -> None:
    """Where two sessions run on a machine, Ray Train's helper would else find both, and ask none."""
    import ray

    @ray.remote(num_cpus=0.1)
    def looked_up() -> str:
        from ray._private.services import canonicalize_bootstrap_address_or_die, find_gcs_addresses

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ray._private.services.find_gcs_addresses", lambda: {"10.0.0.1:1", *find_gcs_addresses()})
            return canonicalize_bootstrap_address_or_die(None)

    assert ray.get(looked_up.remote()) == ray.get_runtime_context().gcs_address
