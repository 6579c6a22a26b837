"""The main job: recordings to shards, tokenizer, perhaps its tokens, pre-training, sweep, evaluation and report.

Run again, it skips the stores, stages and sweeps that were finished from the same settings; the evaluation always runs,
and its opening of the test split is counted.
"""

import functools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from neurolm.baselines.settings import BaselineRun
from neurolm.config import ConfigError, Location, UserError, build, config, load, read
from neurolm.datasets.ingest import Step, plan_digest, plan_downstream, plan_pretraining
from neurolm.datasets.synthetic import write_demo_recordings
from neurolm.distributed.confirmation import confirm, publish
from neurolm.distributed.data import write_stores
from neurolm.distributed.sweep_config import TuneRun
from neurolm.distributed.sweep_log import FILE_NAME as EVENTS
from neurolm.distributed.token_job import encode_on_ray
from neurolm.distributed.train import train
from neurolm.distributed.tune import sweep
from neurolm.eeg.manifest import MANIFEST
from neurolm.eeg.shards import Manifest, Store
from neurolm.reports.baselines import run_baselines
from neurolm.reports.closing import classes_of, closing_words, write_sweep_report
from neurolm.reports.evaluate import EvaluateRun, evaluate
from neurolm.reports.results import results_table
from neurolm.training.runs import load_run
from neurolm.training.token_job import TokenizeRun, describe_tokens, tokenize

STEPS = ("preprocess", "tokenizer", "tokenize", "pretrain", "instruct", "tune", "evaluate", "baselines")
SHARED = ("out", "seed", "workers", "budget", "data", "tracking")
"""Settings of the pipeline file that go to every step; ``tracking`` goes to those that train."""
TRACKED = ("tokenizer", "pretrain", "instruct", "tune")
OWN = ("steps", "synthetic", "cross_validation")
"""Those that are for no step."""
WHOLE = ("declaration", "own_tasks", "space")
"""Settings that a step gets in one piece: labels and answers are in the order of the classes."""


@config
class SyntheticConfig:
    """Recordings that the pipeline writes itself where ``data.root`` is empty."""

    num_subjects: Annotated[int, Field(ge=6)] = 12
    """Subjects in each of the two data sets."""
    seed: int = 0
    """Seed of the generator."""


@config
class CrossValidationConfig:
    """How `ray_jobs/cross_validate.py` repeats a pipeline."""

    folds: Annotated[int, Field(ge=2)] | Literal["loso"] = 5
    """Folds over subjects, or loso for as many as there are subjects. Every subject is tested in one fold."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0, 1, 2)
    """Every fold is run with each of these seeds, on the same windows."""
    concurrent_runs: Annotated[int, Field(gt=0)] = 1
    """Runs at the same time, each of as many workers as the config says: two of one worker are done sooner than one of
    two after the other."""
    within: Literal["all", "train_and_val"] = "all"
    """Fold all subjects (once per frozen config), or only those who train and validate without folds, to choose by."""

    @model_validator(mode="after")
    def _seeds_differ(self) -> "CrossValidationConfig":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed comes twice; give different ones")
        return self


@config
class PipelineConfig:
    """Which steps run, from which files; other settings of the file go to the steps (see `step_settings`)."""

    steps: dict[str, Path]
    """Config file of each step, relative to the pipeline's file."""
    out: Location
    """Folder of the results."""
    synthetic: SyntheticConfig | None = None
    """Write synthetic recordings to ``data.root`` first."""
    cross_validation: CrossValidationConfig = Field(default_factory=CrossValidationConfig)
    """How `ray_jobs/cross_validate.py` repeats the pipeline; `ray_jobs/pipeline.py` runs it once, without folds."""


def run_pipeline(path: Path, overrides: Mapping[str, Any]) -> None:
    """Run every step of a pipeline file, skipping what an earlier run finished. Raises UserError."""
    started = time.perf_counter()
    pipeline, settings = read_pipeline(path, overrides)
    write_synthetic(pipeline, settings)
    for step in STEPS:
        if step in settings:
            file, values = settings[step]
            RUNNERS[step](file, values)
    report = write_sweep_report(pipeline.out)
    print(closing_words(pipeline.out, report, seconds=time.perf_counter() - started))


def write_synthetic(pipeline: PipelineConfig, settings: Mapping[str, tuple[Path, dict[str, Any]]]) -> None:
    """Write the recordings of a pipeline that makes its own."""
    if pipeline.synthetic is not None:
        root = Path(settings["preprocess"][1]["data.root"])
        say(f"synthetic recordings  {root}")
        write_demo_recordings(root, num_subjects=pipeline.synthetic.num_subjects, seed=pipeline.synthetic.seed)


def read_pipeline(
    path: Path, overrides: Mapping[str, Any]
) -> tuple[PipelineConfig, dict[str, tuple[Path, dict[str, Any]]]]:
    """The pipeline's own settings, and for each step its file and the dotted settings it is given.

    ``out``, ``seed``, ``workers``, ``budget`` and ``data`` go to every step, ``tracking`` to those that train; what
    begins with a step's name (``tokenizer.epochs``) goes to that step.
    """
    values = read(path, overrides)
    own = {name: value for name, value in values.items() if name in (*OWN, "out")}
    pipeline = build(PipelineConfig, own, source=str(path))
    unknown = sorted(set(pipeline.steps) - set(STEPS))
    if unknown:
        raise ConfigError(f"{path}: steps: {', '.join(unknown)} not known; known steps: {', '.join(STEPS)}")
    stray = sorted(set(values) - {*OWN, *SHARED, *pipeline.steps})
    if stray:
        raise ConfigError(
            f"{path}: {', '.join(stray)}: no such setting; a pipeline has {', '.join((*SHARED, *OWN))}, "
            f"and settings of its steps ({', '.join(pipeline.steps)})"
        )
    for name in pipeline.steps:
        if not isinstance(values.get(name) or {}, Mapping):
            raise ConfigError(
                f"{path}: {name}: found {values[name]!r}, expected settings of that step: {name}.setting=value"
            )
    missing = [step for step in ("preprocess",) if step not in pipeline.steps]
    if missing:
        raise ConfigError(f"{path}: steps: {', '.join(missing)} is missing; every pipeline begins with it")
    shared = _dotted({name: values[name] for name in SHARED if name in values})
    shared = {name: value for name, value in shared.items() if value is not None}
    quiet = {name: value for name, value in shared.items() if name.split(".")[0] != "tracking"}
    return pipeline, {
        step: (path.parent / file, (shared if step in TRACKED else quiet) | _dotted(values.get(step) or {}))
        for step, file in pipeline.steps.items()
    }


def _dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by dotted name; those whose contents have an order, nulls or dots that mean something stay whole."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        is_section = isinstance(value, Mapping) and name not in WHOLE
        flat |= _dotted(value, f"{prefix}{name}.") if is_section else {f"{prefix}{name}": value}
    return flat


def preprocess_step(file: Path, values: dict[str, Any], try_again: bool = False) -> None:
    """Write the stores, unless they were written from the same files with the same settings.

    Recordings in quarantine are tried again where files or settings have changed, or on demand: a pipeline that is run
    again does not change the data of the stages that it has trained.
    """
    step = load(Step, file, values)
    planned = plan_digest(plan_downstream(step.data, step.store))
    if step.data.pretraining_root is not None:
        planned += plan_digest(plan_pretraining(step.data, step.pretraining_store))
    marker = step.out / "preprocessed.txt"
    if not try_again and marker.exists() and marker.read_text() == planned and (step.store / MANIFEST).exists():
        say(f"preprocess  done before: {describe(Store.open(step.store).manifest)}")
        return
    started = time.perf_counter()
    for name, manifest in write_stores(step.data, step.store, step.pretraining_store).items():
        say(f"preprocess  {name}: {describe(manifest)} in {time.perf_counter() - started:.0f} s")
        for recording, reason in manifest.quarantined.items():
            say(f"preprocess  quarantined {recording}: {reason} (file: {step.out / 'private' / 'recordings.json'})")
    marker.write_text(planned)


def train_step(file: Path, values: dict[str, Any]) -> None:
    """Train a stage."""
    run = load_run(file, values)
    metrics = train(run)
    shown = {name: value for name, value in metrics.items() if name in ("loss", "accuracy", "score", "codebook_usage")}
    say(f"{run.name}  " + "  ".join(f"validation {name} {value:.3f}" for name, value in shown.items()))
    for alarm in run.alarms(metrics):
        say(f"{run.name}  ALARM  {alarm}")


def tokenize_step(file: Path, values: dict[str, Any]) -> None:
    """Write the EEG tokens that ``data.tokens`` asks for. Raises ConfigError where it asks for none."""
    run = load(TokenizeRun, file, values)
    started = time.perf_counter()
    for folder, manifest in tokenize(run, functools.partial(encode_on_ray, run)).items():
        say(f"tokenize  {folder.name}: {describe_tokens(manifest)} in {time.perf_counter() - started:.0f} s")


def _tokenize_if_asked(file: Path, values: dict[str, Any]) -> None:
    if load(TokenizeRun, file, values).data.tokens != "none":
        tokenize_step(file, values)


def tune_step(file: Path, values: dict[str, Any], must_exist: bool = False) -> None:
    """Run or resume the sweep and its confirmation. Raises UserError, also where it should have been begun."""
    run = load(TuneRun, file, values)
    if must_exist and not (run.sweep_folder / EVENTS).is_file():
        raise UserError(f"{run.sweep_folder}: there is no sweep to resume; give its out, or leave --resume out")
    say(f"tune  {run.sweep.num_trials} trials over {', '.join(run.sweep.space)}")
    record = sweep(run)
    told = ", ".join(f"{record.count(state)} {state}" for state in ("complete", "pruned", "failed"))
    best = record.best
    assert best is not None, "a sweep without a finished trial has raised"
    say(f"tune  {told}; best: trial {best.number}, {record.metric} {best.best_value:.3f}")
    write_sweep_report(run.out)
    found = confirm(run, record)
    if found is not None:
        say(f"tune  on seeds {', '.join(map(str, found.seeds))}: {found.verdict}")
    publish(run, found, write_sweep_report(run.out))


def evaluate_step(file: Path, values: dict[str, Any]) -> None:
    """Open the test split once."""
    run = load(EvaluateRun, file, values)
    evaluation = evaluate(run)
    print(results_table(evaluation.results, classes_of(run.out)))


def baselines_step(file: Path, values: dict[str, Any]) -> None:
    """Fit every baseline, then open the test split once for all of them."""
    run = load(BaselineRun, file, values)
    run_baselines(run, lambda line: say(f"baselines  {line}"))


RUNNERS = {
    "preprocess": preprocess_step,
    "tokenizer": train_step,
    "tokenize": _tokenize_if_asked,
    "pretrain": train_step,
    "instruct": train_step,
    "tune": tune_step,
    "evaluate": evaluate_step,
    "baselines": baselines_step,
}


def describe(manifest: Manifest) -> str:
    """A store in one line."""
    counts = manifest.counts
    left_out = sum(manifest.dropped.values())
    return (
        f"{counts['num_windows']} windows of {counts['num_recordings']} recordings, {counts['num_subjects']} subjects, "
        f"{len(manifest.quarantined)} quarantined, {left_out} windows dropped"
    )


def say(line: str) -> None:
    """One line for people, at once also where output is a file."""
    print(line, flush=True)
