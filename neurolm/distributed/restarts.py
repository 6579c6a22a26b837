"""How often and with how many workers Ray Train starts a run, and after what it takes a worker for dead."""

import os

from ray.train import FailureConfig, ScalingConfig
from ray.train.torch import TorchConfig

from neurolm.training.runs import TrainingRun

GRACE_S = 60.0
"""Ray's own limits lie this far above ours, so that the log says where a worker hung before Ray ends it."""


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
