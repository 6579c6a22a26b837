"""Several calls at the same time, each in a process of the cluster, where it may start Train runs of its own."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import ray

from neurolm.progress import Bar

T = TypeVar("T")
LOOK_EVERY_S = 1.0


def run_at_once(calls: Sequence[Callable[[], T]], at_once: int, name: str) -> list[T]:
    """What the calls return, in order; the first error of any is raised, and those that still run are ended."""
    task = ray.remote(num_cpus=0.01, max_retries=0)(_call)
    waiting = list(enumerate(calls))
    running: dict[Any, int] = {}
    results: dict[int, T] = {}
    bar = Bar(name)
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                place, call = waiting.pop(0)
                running[task.remote(call)] = place
            for ended in ray.wait(list(running), timeout=LOOK_EVERY_S)[0]:
                place = running.pop(ended)
                try:
                    results[place] = ray.get(ended)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None
            bar.show(len(results) / len(calls), {"ended": f"{len(results)}/{len(calls)}"})
    finally:
        for ref in running:
            ray.cancel(ref, force=True)
        bar.close()
    return [results[place] for place in range(len(calls))]


def _call(call: Callable[[], T]) -> T:
    return call()
