"""A Ray Train worker as the training loop sees it: reports with checkpoints, calls from outside, and a watchdog."""

import faulthandler
import hashlib
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.experimental import internal_kv
from ray.train import Checkpoint, CheckpointConsistencyMode, CheckpointUploadMode
from torch import Tensor

from neurolm.config import UserError
from neurolm.training.context import Call, ProcessGroupContext
from neurolm.training.run_checkpoint import RunCheckpoints
from neurolm.training.training_run import TrainingRun
from neurolm.training.worker import run_key

LISTEN_EVERY_S = 1.0
"""How often the first worker listens at most; a call is answered after the step that it was heard in."""
UNKNOWN_NOTICE_S = 120.0
"""How long a node is expected to stay that is announced to go without saying when; Ray waits as long."""
COMMIT_S = 4.0
"""The least time for a checkpoint to be written and committed before a node goes."""
RESTART_WITHIN_S = 60.0
"""How long after a node's end Ray may take to start the workers again."""
KEPT_IN = b"neurolm"
"""Namespace of Ray's key-value store."""


class StopFlag:
    """A word from the driver of a run to its first worker; the cluster keeps it, whatever file systems there are."""

    def __init__(self, run: TrainingRun) -> None:
        self._key = b"stop-" + hashlib.sha256(run_key(run).encode()).hexdigest().encode()

    def set(self) -> None:
        """Ask the run to stop."""
        internal_kv._internal_kv_put(self._key, b"stop", namespace=KEPT_IN)

    def clear(self) -> None:
        """Forget what an earlier driver asked."""
        internal_kv._internal_kv_del(self._key, namespace=KEPT_IN)

    def is_set(self) -> bool:
        """Whether the run was asked to stop."""
        return bool(internal_kv._internal_kv_exists(self._key, namespace=KEPT_IN))


class Watchdog:
    """Ends this process where it gets no further for too long, after writing to its log where every thread stands.

    It runs outside the interpreter, so it also ends what hangs in a collective or in a file system; Ray Train then
    starts all workers again. Workers wait for the slowest of them at every step: all notice when one hangs.
    """

    def __init__(self, timeout_s: float, first_timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._arm(first_timeout_s)

    def beat(self) -> None:
        """Begin to wait anew."""
        self._arm(self._timeout_s)

    def stop(self) -> None:
        """Wait no more."""
        faulthandler.cancel_dump_traceback_later()

    def _arm(self, seconds: float) -> None:
        faulthandler.dump_traceback_later(seconds, file=2, exit=True)


class RayContext(ProcessGroupContext):
    """A Ray Train worker: a process group, reports that carry checkpoints, an ear for the driver and the cluster.

    Training goes on while a checkpoint is brought to its storage; the next report waits for it, so that checkpoints do
    not pile up on the worker's disk.
    """

    def __init__(
        self,
        device: torch.device,
        building: Callable[[], AbstractContextManager[None]],
        checkpoints: RunCheckpoints,
        leave_mistake: Callable[[UserError], None],
        stop_flag: StopFlag,
        watchdog: Watchdog,
    ) -> None:
        super().__init__(device, building)
        self._checkpoints = checkpoints
        self._leave_mistake = leave_mistake
        self._brought = threading.Event()
        self._brought.set()
        self._stop_flag = stop_flag
        self._watchdog = watchdog
        self._listens_at = 0.0
        self._leaving: set[str] = set()
        self._leaves_at: float | None = None
        self._saves_at: float | None = None

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """Sum over workers; where that succeeds, all of them are alive."""
        total = super().all_reduce_sum(values)
        self._watchdog.beat()
        return total

    def all_gather_object(self, value: Any) -> list[Any]:
        """Gather, with the same meaning."""
        gathered = super().all_gather_object(value)
        self._watchdog.beat()
        return gathered

    def report(self, metrics: dict[str, Any], checkpoint: Path | None) -> None:
        """Report to Ray Train; with a checkpoint, the parts of all workers are merged into one."""
        self._brought.wait()
        if checkpoint:
            self._brought.clear()
        ray.train.report(
            metrics,
            checkpoint=Checkpoint.from_directory(str(checkpoint)) if checkpoint else None,
            checkpoint_dir_name=self._checkpoints.new_name(metrics["step"]),  # the first worker's counts
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            checkpoint_upload_fn=self._bring,
        )
        self._watchdog.beat()

    def wait_for_commit(self) -> None:
        """Return when Ray Train has heard of every report of every worker: then the checkpoints are whole."""
        ray.train.get_all_reported_checkpoints(consistency_mode=CheckpointConsistencyMode.COMMITTED)
        self._watchdog.beat()

    def call(self) -> Call:
        """On the first worker, about once a second: what the driver and the clock say, else a reminder to look around.

        Before a node goes, checkpoints are saved when the notice comes and whenever half of the time left has passed.
        """
        now = time.time()
        if self.rank != 0 or now < self._listens_at:
            return Call.NOTHING
        self._listens_at = now + LISTEN_EVERY_S
        if self._stop_flag.is_set():
            return Call.STOP
        if self._saves_at is not None and now >= self._saves_at:
            self._saves_at = half_way(now, self._leaves_at)
            return Call.SAVE
        return Call.LOOK

    def is_leaving(self) -> bool:
        """Whether Ray drains a node of this run that was not draining before."""
        notice = ray.train.get_preemption_info()
        if notice is None or set(notice.preempted_node_ids) <= self._leaving:
            return False
        self._leaving |= set(notice.preempted_node_ids)
        now = time.time()
        self._leaves_at = notice.deadline_ms / 1000 if notice.deadline_ms else now + UNKNOWN_NOTICE_S
        self._saves_at = half_way(now, self._leaves_at)
        return True

    def await_restart(self) -> None:
        """After an error, where a node was announced to go: let Ray start all workers again because of that.

        The others lose their connections a moment before Ray knows that the node is gone, and their errors would count
        as failures.
        """
        if self._leaves_at is not None:
            self._watchdog.stop()
            time.sleep(max(0.0, self._leaves_at + RESTART_WITHIN_S - time.time()))

    def _bring(self, checkpoint: Checkpoint, name: str) -> Checkpoint:
        try:
            path = self._checkpoints.commit(Path(checkpoint.path), name)
        except UserError as error:
            self._leave_mistake(error)  # here, because it is not the training thread that fails
            raise
        finally:
            self._brought.set()
        return Checkpoint(path, self._checkpoints.filesystem)


def half_way(now: float, end: float | None) -> float | None:
    """The middle of the time that is left; None where that is too short for a checkpoint to be committed."""
    return now + (end - now) / 2 if end is not None and (end - now) / 2 >= COMMIT_S else None
