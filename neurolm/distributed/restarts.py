"""How often and with how many workers Ray Train starts a run, and after what it takes a worker for dead."""

import logging
import os

import ray
from ray.train import FailureConfig, ScalingConfig
from ray.train.torch import TorchConfig

from neurolm.config import UserError
from neurolm.distributed.jobs import OWN_SESSION
from neurolm.training.training_run import TrainingRun

logger = logging.getLogger(__name__)
GRACE_S = 60.0
"""Ray's own limits lie this far above ours, so that the log says where a worker hung before Ray ends it."""


def refuse_too_few_cpus(run: TrainingRun) -> None:
    """Workers without a CPU for the actor that reads for them wait for ever; a cluster may still get more machines.

    Raises:
        UserError: this machine is all there is, and it has fewer CPUs than the run asks for.
    """
    workers = run.min_workers or run.workers
    wanted = workers * (run.resources.cpus_per_worker + run.resources.reader_cpus)
    there = ray.cluster_resources().get("CPU", 0.0)
    if wanted <= there:
        return
    words = (
        f"run {run.name} asks for {wanted:g} CPUs: {workers} workers with resources.cpus_per_worker = "
        f"{run.resources.cpus_per_worker:g} and resources.reader_cpus = {run.resources.reader_cpus:g} each; "
    )
    if OWN_SESSION in os.environ:
        raise UserError(f"{words}this machine has {there:g}. Lower one of them or workers")
    logger.warning("%sthe cluster has %g and the run waits for more", words, there)


def scaling_config(run: TrainingRun) -> ScalingConfig:
    """As many workers as the run asks for; with ``min_workers``, as many of them as there are machines for."""
    resources = {"CPU": run.resources.cpus_per_worker}
    if run.resources.gpus_per_worker:
        resources["GPU"] = run.resources.gpus_per_worker
    return ScalingConfig(
        num_workers=run.workers if run.min_workers is None else (run.min_workers, run.workers),
        elastic_resize_monitor_interval_s=run.survival.resize_every_s,
        use_gpu=run.resources.gpus_per_worker > 0,
        resources_per_worker=resources,
    )


def failure_config(run: TrainingRun) -> FailureConfig:
    """Nodes that were announced to go are not counted as failures."""
    return FailureConfig(max_failures=run.survival.max_failures, max_preemption_failures=-1)


def torch_config(run: TrainingRun) -> TorchConfig:
    """A collective that waits longer than the watchdog fails."""
    return TorchConfig(timeout_s=round(run.survival.worker_timeout_s + GRACE_S))


def set_environment(run: TrainingRun) -> None:
    """Ray Train reads its limits from the driver's environment and hands them to its controller and workers."""
    survival = run.survival
    limit = survival.worker_timeout_s + GRACE_S
    start = survival.start_timeout_s if run.min_workers is None else survival.replacement_wait_s
    os.environ |= {
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",  # also how soon a reported checkpoint is committed
        "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": str(limit),
        "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": str(limit),
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(start),
        "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": str(survival.preemption_poll_s),
    }
