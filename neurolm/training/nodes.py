"""What every node of a run is busy with: processor, memory, disk and network, sampled by one worker of each."""

import logging
import math
import platform
import time
from collections.abc import Mapping
from pathlib import Path

from neurolm.training.context import RunContext

logger = logging.getLogger(__name__)

SAMPLE_EVERY_S = 10.0
NAMES = ("cpu_percent", "memory_percent", "disk_free_gib", "network_received_mib", "network_sent_mib")


class Nodes:
    """Samples this worker's node, if it is the first worker there; every worker must make one.

    Nodes have numbers, in the order of their first workers; their host names stay in memory.

    Args:
        context: of the worker.
        folder: on the disk whose room is told.
    """

    def __init__(self, context: RunContext, folder: Path) -> None:
        hosts = context.all_gather_object(platform.node())
        ordered = list(dict.fromkeys(hosts))
        mine = hosts[min(context.rank, len(hosts) - 1)]
        self._names = [f"system/{name}/node-{node:02d}" for node in range(len(ordered)) for name in NAMES]
        self._node = ordered.index(mine)
        self._is_first = hosts.index(mine) == context.rank
        self._folder = folder
        self._sampled_at = -math.inf
        self._sample: dict[str, float] = {}

    def values(self) -> dict[str, float]:
        """This worker's part of a sum over workers that tells every node's numbers."""
        zeros = dict.fromkeys(self._names, 0.0)
        if not self._is_first:
            return zeros
        if time.monotonic() - self._sampled_at >= SAMPLE_EVERY_S:
            self._sampled_at = time.monotonic()
            self._sample = {f"system/{name}/node-{self._node:02d}": value for name, value in self._look().items()}
        return zeros | self._sample

    def _look(self) -> Mapping[str, float]:
        try:
            import psutil
        except ImportError:
            logger.info("psutil is not installed; this node's system metrics are left out")
            self._sampled_at = math.inf
            return dict.fromkeys(NAMES, math.nan)
        network = psutil.net_io_counters()
        return {
            "cpu_percent": psutil.cpu_percent(),  # since the sample before
            "memory_percent": psutil.virtual_memory().percent,
            "disk_free_gib": psutil.disk_usage(str(self._folder)).free / 2**30,
            "network_received_mib": network.bytes_recv / 2**20,
            "network_sent_mib": network.bytes_sent / 2**20,
        }
