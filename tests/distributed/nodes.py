"""`python -m tests.distributed.nodes SCENARIO FOLDER RAY`: train FOLDER/run.yaml on two nodes, and hurt one.

It is a process of its own, because a process can be part of one Ray cluster only. Ray's own files go to RAY, what was
done when to FOLDER/blows.json.
"""

import json
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from neurolm.distributed.train import train
from neurolm.training.runs import load_run
from tests.distributed.survivors import Slow, Trace, Witness, wait_for

NOTICE_S = 20.0
STEP_S = 0.5
NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


def main(scenario: str, folder: Path, ray_folder: Path) -> None:
    """Train in a thread, because nodes can only be added in the main one."""
    warnings.simplefilter("ignore")
    run = load_run(folder / "run.yaml")
    witness, trace = Witness(folder / "witness.jsonl"), Trace(run)
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": 100 * 2**20, "temp_dir": str(ray_folder)},
    )
    nodes = [cluster.add_node(**NODE) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    failures: list[BaseException] = []

    def fit() -> None:
        try:
            train(run, callbacks=[witness, Slow(STEP_S)], show_progress=False)
        except BaseException as error:
            failures.append(error)

    training = threading.Thread(target=fit, daemon=True)
    training.start()

    def reached(step: int, starts: int = 1) -> Any:
        assert not failures, failures
        steps = trace.steps()
        return bool(steps) and steps[-1][0] >= step and len(witness.events("start")) >= starts

    wait_for(lambda: reached(13))
    blows = {"noticed_at": time.time()}
    if scenario == "notice":
        announce(cluster, nodes[1], NOTICE_S)
        time.sleep(NOTICE_S)
    blows["hurt_at"] = time.time()
    cluster.remove_node(nodes[1], allow_graceful=False)
    if scenario == "elastic":
        wait_for(lambda: reached(22, starts=2))
    else:
        time.sleep(3)
    blows["replaced_at"] = time.time()
    cluster.add_node(**NODE)
    training.join()
    (folder / "blows.json").write_text(json.dumps(blows))
    ray.shutdown()
    cluster.shutdown()
    if failures:
        raise failures[0]


def announce(cluster: Cluster, node: Any, seconds: float) -> None:
    """What a cloud's daemon does when a spot machine is taken back: `ray drain-node` with a deadline."""
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    deadline_ms = int((time.time() + seconds) * 1000)
    is_accepted, why = GcsClient(address=cluster.address).drain_node(node.node_id, reason, "test", deadline_ms)
    assert is_accepted, why


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
