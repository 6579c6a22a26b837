"""After a sweep: its best setting and the one it has to beat, each trained again on seeds that no trial had.

Everything is chosen by validation; the test split cannot be read here. Of the best setting's runs (of the other's,
where fresh seeds say that the best is worse) the one with the best validation score becomes ``instruct/model``, in
place of the best trial's own model, whose score is that of the luckiest of many. Each run is a Train run in the sweep's
folder with a run id of its own, so the same command goes on where it was cut off; more seeds may be asked for later.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray

from neurolm.config import UserError, as_dict, as_yaml, override
from neurolm.distributed.context import StopFlag
from neurolm.distributed.sweep_config import TuneRun
from neurolm.distributed.sweep_driver import trial_run
from neurolm.distributed.sweep_log import sole_driver
from neurolm.distributed.train import anchored, train
from neurolm.distributed.trial_budget import read_recording
from neurolm.distributed.tune import room
from neurolm.progress import Bar
from neurolm.reports.confirmation import FILE_NAME, Arm, Confirmation, SeedRun
from neurolm.reports.sweep import SweepRecord, TrialRecord
from neurolm.tracking import start_run
from neurolm.training.checkpoint import copy_model
from neurolm.training.run_checkpoint import RunCheckpoints
from neurolm.training.runs import InstructRun
from neurolm.training.stopping import Stopped, stop_signals
from neurolm.training.training_run import training_digest, without_raw_places
from neurolm.training.worker import finished

LOOK_EVERY_S = 1.0


class ConfirmationStopped(Stopped):
    """A confirmation ended on request; its runs wrote their checkpoints."""

    def __init__(self, num_ended: int, num_runs: int) -> None:
        Exception.__init__(
            self,
            f"stopped on request after {num_ended} of {num_runs} runs on fresh seeds; checkpoints are written, and the "
            "same command again goes on from there",
        )


@dataclass(frozen=True)
class Job:
    """One run of a confirmation."""

    arm: Arm
    seed: int
    run: InstructRun


def confirm(run: TuneRun, record: SweepRecord) -> Confirmation | None:
    """Run or resume the confirmation of a finished sweep; None where ``sweep.confirmation_seeds`` is 0.

    Raises:
        UserError: what the sweep was made from has changed, or another process runs it.
        Stopped: this process was asked to stop (SIGTERM, SIGINT), and the runs have.
    """
    run, best = anchored(run), record.best
    if best is None or not run.sweep.confirmation_seeds:
        return None
    with sole_driver(run.sweep_folder):
        return _confirm(run, record, best)


def _confirm(run: TuneRun, record: SweepRecord, best: TrialRecord) -> Confirmation:
    reference, parameters = reference_setting(run)
    seeds = fresh_seeds(run, record)
    jobs = jobs_of(run, best, parameters, seeds)
    beaten = trial_run(run, 0, parameters)
    is_same = training_digest(trial_run(run, 0, best.parameters)) == training_digest(beaten)
    if is_same:
        jobs = [job for job in jobs if job.arm == "best"]
    path = run.sweep_folder / FILE_NAME
    before = Confirmation.load(path) if path.is_file() else None
    found = Confirmation(
        metric=record.metric, seeds=seeds, best_trial=best.number, sweep_score=best.best_value or 0.0,
        reference=reference, reference_parameters=settings_of(beaten, run.sweep.space), is_same=is_same,
        best_runs=[], reference_runs=[], larger_is_better=record.mode == "max",
        kept_seed=before.kept_seed if before else None, kept_arm=before.kept_arm if before else "best",
    )  # fmt: skip
    scored: dict[str, SeedRun] = {}

    def heard(job: Job, kept: Mapping[str, float] | None, reason: str | None) -> Confirmation:
        scored[job.run.name] = seed_run(run, job, kept, reason)
        if kept is not None:
            RunCheckpoints(job.run.checkpoint_storage, job.run.name).clear()  # the model that it kept lies apart
        whole = with_runs(found, jobs, scored)
        whole.save(path)
        return whole

    for job, kept in [(job, finished(job.run)) for job in jobs]:
        if kept is not None:
            heard(job, kept, None)
    left = [job for job in jobs if job.run.name not in scored]
    if left:
        train_all(run, left, heard, num_runs=len(jobs))
    found = keep_best(run, best, with_runs(found, jobs, scored))
    found.save(path)
    return found


def reference_setting(run: TuneRun) -> tuple[str, dict[str, Any]]:
    """What the sweep has to beat: the first setting it was given (in shipped configs the paper's), or its config."""
    if run.sweep.first:
        return "the setting given first", dict(run.sweep.first[0])
    return "the config unchanged", {}


def settings_of(run: InstructRun, names: Iterable[str]) -> dict[str, Any]:
    """A run's values of dotted settings, without those of a section that it has not."""
    found = {}
    for name in names:
        value: Any = as_dict(run)
        for part in name.split("."):
            if not isinstance(value, Mapping) or part not in value:
                break
            value = value[part]
        else:
            found[name] = value
    return found


def fresh_seeds(run: TuneRun, record: SweepRecord) -> list[int]:
    """The smallest seeds above those that trials had."""
    used = {run.seed, *(int(trial.parameters["seed"]) for trial in record.trials if "seed" in trial.parameters)}
    return [max(used) + place for place in range(1, run.sweep.confirmation_seeds + 1)]


def jobs_of(run: TuneRun, best: TrialRecord, reference: Mapping[str, Any], seeds: list[int]) -> list[Job]:
    """Both settings seed by seed, so that pairs are complete as early as can be."""
    arms: dict[Arm, dict[str, Any]] = {"best": best.parameters, "reference": dict(reference)}
    return [
        Job(arm, seed, override(trial_run(run, best.number, {**parameters, "seed": seed}),
                                {"run_id": f"confirm-{arm}-seed-{seed}"}))
        for seed in seeds
        for arm, parameters in arms.items()
    ]  # fmt: skip


def seed_run(run: TuneRun, job: Job, kept: Mapping[str, float] | None, reason: str | None) -> SeedRun:
    """What a run has to show; ``kept`` are the metrics of the weights that it kept, None if it failed."""
    seconds = read_recording(job.run.folder).seconds
    if kept is None:
        return SeedRun(job.seed, job.run.name, seconds=seconds, reason=reason)
    tasks = job.run.task_scores(kept)
    names = list(run.directions)
    score = kept["score"] if len(names) > 1 else kept.get(names[0], tasks.get(names[0], kept["score"]))
    return SeedRun(job.seed, job.run.name, score, tasks, seconds)


def with_runs(found: Confirmation, jobs: list[Job], scored: Mapping[str, SeedRun]) -> Confirmation:
    """The record with the runs so far, in order of seeds."""
    by_arm = {
        arm: [scored[job.run.name] for job in jobs if job.arm == arm and job.run.name in scored]
        for arm in ("best", "reference")
    }
    return replace(found, best_runs=by_arm["best"], reference_runs=by_arm["reference"])


def train_all(
    run: TuneRun,
    jobs: list[Job],
    heard: Callable[[Job, Mapping[str, float] | None, str | None], Any],
    num_runs: int,
) -> None:
    """Train the jobs, as many at a time as the sweep has trials. Raises ConfirmationStopped."""
    at_once = run.sweep.concurrent_trials or room(run)
    task = ray.remote(num_cpus=0.01)(_train)
    waiting, running, is_stopping = list(jobs), dict[Any, Job](), False
    bar = Bar("confirm")

    def stop() -> None:
        nonlocal is_stopping
        is_stopping = True

    with stop_signals(stop):
        while running or (waiting and not is_stopping):
            while waiting and len(running) < at_once and not is_stopping:
                job = waiting.pop(0)
                running[task.remote(job.run, run.key)] = job
            if is_stopping:
                for job in running.values():  # again and again: a run that has just begun forgets what it was asked
                    StopFlag(job.run).set()
            for ended in ray.wait(list(running), timeout=LOOK_EVERY_S)[0]:
                job = running.pop(ended)
                kept, reason = _outcome(ended)
                if kept is not None or reason is not None:
                    heard(job, kept, reason)
                else:
                    waiting.append(job)
            done = num_runs - len(waiting) - len(running)
            bar.show(done / num_runs, {"runs": f"{done}/{num_runs}"})
    bar.close()
    if waiting:
        raise ConfirmationStopped(num_runs - len(waiting), num_runs)


def _train(job: InstructRun, parent: str) -> tuple[Mapping[str, float] | None, str | None]:
    """The metrics of the weights kept, or why there are none; neither of a run that was asked to stop."""
    try:
        return train(job, parent=parent, show_progress=False), None
    except Stopped:
        return None, None
    except UserError as error:
        return None, str(error)
    except Exception as error:  # one seed's end is not the others'
        return None, _last_line(error)


def _outcome(ended: Any) -> tuple[Mapping[str, float] | None, str | None]:
    try:
        found: tuple[Mapping[str, float] | None, str | None] = ray.get(ended)
        return found
    except ray.exceptions.RayError as error:
        return None, _last_line(error)


def _last_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[-1]}"


def keep_best(run: TuneRun, best: TrialRecord, found: Confirmation) -> Confirmation:
    """Make the chosen run's model ``instruct/model``, with its config as ``best.yaml``; no run, no change."""
    chosen = found.chosen
    arm = found.chosen_arm
    model = run.out / "instruct" / "model"
    if chosen is None or ((chosen.seed, arm) == (found.kept_seed, found.kept_arm) and model.is_dir()):
        return found
    copy_model(run.sweep_folder / chosen.run_id / "model", model)
    parameters = best.parameters if arm == "best" else reference_setting(run)[1]
    config = without_raw_places(run.trial_run({**parameters, "seed": chosen.seed}))
    (run.out / "best.yaml").write_text(as_yaml(config))
    return replace(found, kept_seed=chosen.seed, kept_arm=arm)


def publish(run: TuneRun, found: Confirmation | None, report: Path | None) -> None:
    """Add the report, the best config and what fresh seeds say to the sweep's own MLflow run."""
    run = anchored(run)
    tracker = start_run(run.tracking, folder=run.sweep_folder, name="sweep", run_key=run.key)
    if found is not None:
        tracker.metrics(len(found.seeds), dict(_numbers(found)))
        tracker.tags({"confirmation": found.verdict})
    files = [run.out / "best.yaml", *(report.with_suffix(kind) for kind in (".html", ".md", ".json") if report)]
    for file in files:
        tracker.artifact(file.absolute())
    tracker.close("FINISHED")


def _numbers(found: Confirmation) -> Iterator[tuple[str, float]]:
    for name, one in (("best", found.best), ("reference", found.paper)):
        if one is not None:
            yield f"confirmation/{name}_mean", one.mean
            if one.sd is not None:
                yield f"confirmation/{name}_sd", one.sd
    if (difference := found.difference) is not None:
        yield "confirmation/difference", difference.mean
        yield "confirmation/p_value", difference.p_value
