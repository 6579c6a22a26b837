"""`neurolm check`: is this config going to run? Names, recordings, stores, and one real batch forward and backward.

A pipeline is checked by running it small: the first recordings of every split become a store in a temporary folder, and
every training stage does one real step on it and hands its model to the next, in this process and without Ray.
"""

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from neurolm.baselines.settings import BaselineRun
from neurolm.config import UserError, load, override, read
from neurolm.datasets.ingest import (
    ShardPlan,
    Step,
    plan_downstream,
    plan_pretraining,
    run_locally,
    write_store,
)
from neurolm.datasets.jobs import reason_of
from neurolm.distributed.pipeline import read_pipeline
from neurolm.distributed.sweep_config import TuneRun, check_space
from neurolm.eeg.preprocessing import preprocess
from neurolm.eeg.privacy import recording_called
from neurolm.eeg.reading import read_steps
from neurolm.eeg.shards import Store
from neurolm.reports.evaluate import EvaluateRun
from neurolm.training.assembly import assemble
from neurolm.training.context import LocalContext
from neurolm.training.leakage import check_leakage
from neurolm.training.loop import sum_over_workers
from neurolm.training.model_export import export
from neurolm.training.runs import load_run
from neurolm.training.tensor_file import TensorStream
from neurolm.training.token_job import TokenizeRun, describe_tokens, encode_locally, tokenize
from neurolm.training.training_run import TrainingRun

RECORDINGS_PER_SPLIT = 2
"""Recordings of every data set and split that a check reads."""
OTHERS: dict[str, type[Step]] = {"preprocess": Step, "evaluate": EvaluateRun, "baselines": BaselineRun}
"""Steps of a pipeline of which a check reads the settings alone."""


def check(path: Path, overrides: Mapping[str, Any]) -> Iterator[str]:
    """Yield one line for everything that was found in order. Raises UserError at the first that is not."""
    values = read(path, overrides)
    if "steps" in values:
        yield from _check_pipeline(path, overrides)
        return
    if "sweep" in values:
        sweep = load(TuneRun, path, overrides)
        check_space(sweep)
        yield f"{path}: settings valid, search space of {len(sweep.sweep.space)} settings valid"
        yield _describe_leakage(sweep)
        yield _one_step(sweep.instruct_run())
    elif "stage" in values:
        run = load_run(path, dict(overrides))
        yield f"{path}: settings valid"
        yield _describe_store(run.training_store)
        yield _describe_leakage(run)
        yield _one_step(run)
    else:
        of_evaluation = _names(EvaluateRun) - _names(Step)
        step: Step = load(EvaluateRun if of_evaluation & values.keys() else Step, path, overrides)
        yield f"{path}: settings valid"
        yield from _check_recordings(plan_downstream(step.data, step.store))


def _names(settings: type[Step]) -> set[str]:
    return {field.name for field in dataclasses.fields(settings)}


def _check_pipeline(path: Path, overrides: Mapping[str, Any]) -> Iterator[str]:
    pipeline, settings = read_pipeline(path, overrides)
    runs: dict[str, TrainingRun | TokenizeRun] = {}
    for name, (file, values) in settings.items():
        if name == "tune":
            sweep = load(TuneRun, file, values)
            check_space(sweep)
            runs["instruct"] = sweep.instruct_run()
        elif name in OTHERS:
            load(OTHERS[name], file, values)
        elif name == "tokenize":
            if (job := load(TokenizeRun, file, values)).data.tokens != "none":
                runs[name] = job
        else:
            runs[name] = load_run(file, values)
        yield f"{file}: settings valid"
    step = load(Step, *settings["preprocess"])
    with tempfile.TemporaryDirectory(prefix="neurolm-check-") as folder:
        here = Path(folder)
        if pipeline.synthetic is not None and not Path(str(step.data.root)).exists():
            yield f"data.root: {step.data.root} is not there yet; the pipeline writes synthetic recordings to it"
            return
        plans = _few(plan_downstream(step.data, here / "store"))
        yield from _check_recordings(plans)
        write_store(plans, here / "store", run_locally)
        places = {"out": folder, "data.store": str(here / "store"), "workers": 1}
        places |= {"data.token_store": None, "data.pretraining_token_store": None}  # below ``out``
        if "tokenize" not in runs:
            places["data.tokens"] = "none"  # tokens that are there already are of all windows, not of these few
        if step.data.pretraining_root is not None:
            plans = _few(plan_pretraining(step.data, here / "pretraining_store"))
            yield from _check_recordings(plans)
            write_store(plans, here / "pretraining_store", run_locally)
            places["data.pretraining_store"] = str(here / "pretraining_store")
        for run in runs.values():
            if isinstance(run, TokenizeRun):
                for tokens, manifest in tokenize(override(run, places), encode_locally).items():
                    yield f"{tokens.name}: {describe_tokens(manifest)}"
            else:
                alone = places | {"engine": {"kind": "torch"}, "tracking.enabled": False}
                yield _one_step(override(run, alone), keep=True)


def _few(plans: list[ShardPlan]) -> list[ShardPlan]:
    """The first shard of every data set and split, with its first recordings."""
    first: dict[tuple[str, str], ShardPlan] = {}
    for plan in plans:
        first.setdefault((plan.data_set, plan.split), plan)
    return [dataclasses.replace(plan, sources=plan.sources[:RECORDINGS_PER_SPLIT]) for plan in first.values()]


def _check_recordings(plans: list[ShardPlan]) -> Iterator[str]:
    """Read, preprocess and cut the first recordings of every split; here a broken one is an error that names its file.

    A file without its published name goes by its keyed id.
    A data set fails only where none of its recordings can be used: a pipeline quarantines single ones.
    """
    by_set: dict[str, list[ShardPlan]] = {}
    for plan in _few(plans):
        by_set.setdefault(plan.data_set, []).append(plan)
    for name, members in by_set.items():
        usable, errors = 0, []
        for plan in members:
            for source in plan.sources:
                shown = plan.layout.shown_name(source, plan.recording_id(source))
                try:
                    with recording_called(shown):
                        recording = preprocess(plan.layout.read(source), plan.preprocessing, plan.layout.mains_hz)
                        usable += bool(plan.layout.windows(source, recording)[0])
                except UserError as error:
                    errors.append(reason_of(source, error, shown))
        if not usable:
            raise UserError(f"data set {name}: no recording of {len(errors)} tried can be used; first: {errors[0]}")
        yield f"data set {name}: {usable} recordings read, preprocessed and cut"
        yield from (f"data set {name}: would be quarantined: {error}" for error in errors)


def _describe_store(path: Path) -> str:
    manifest = Store.open(path).manifest
    return f"{path}: store of {manifest.counts['num_windows']} windows, digest {manifest.data_digest[:16]}"


def _describe_leakage(run: TrainingRun) -> str:
    allowed = check_leakage(run, run.data.allow_leakage)
    if allowed is None:
        return f"{run.store}: nothing of its test split is trained on"
    return (
        f"{run.store}: leakage allowed ({allowed['reason']}), test recordings trained on: {allowed['num_recordings']}"
    )


def _one_step(run: TrainingRun, keep: bool = False) -> str:
    """One real batch forward and backward; with ``keep`` the model is written for the next stage."""
    context = LocalContext()
    assembly = assemble(run, context)
    batch = assembly.batcher(next(read_steps(assembly.windows, assembly.order, range(1))))
    totals = sum_over_workers(batch.counts, context)
    assembly.stage.before_training(batch.micro_batches, context)
    losses = [assembly.stage(micro_batch, totals)["loss"] for micro_batch in batch.micro_batches]
    loss = torch.stack(losses).sum()
    loss.backward()
    trainable = [parameter for parameter in assembly.stage.parameters() if parameter.requires_grad]
    norm = torch.stack([p.grad.norm() for p in trainable if p.grad is not None]).norm()
    if not torch.isfinite(loss) or not torch.isfinite(norm):
        raise UserError(f"stage {run.stage_name}: the first batch gives loss {loss:.4g} and gradient norm {norm:.4g}")
    if keep:
        weights = TensorStream.of(assembly.stage.state_dict())
        export(run.out / run.stage_name / "model", assembly.describe({}, {}), weights)
    number = sum(parameter.numel() for parameter in trainable)
    return f"stage {run.stage_name}: {number:,} trainable parameters, loss {loss:.3f}, gradient norm {norm:.3g}"
