"""A folder as `evaluate` leaves it, of answers made up for tests."""

from pathlib import Path

import numpy as np

from neurolm.evaluation.details import details
from neurolm.evaluation.predictions import Predictions, score
from neurolm.reports.results import write_results


def answers(quality: float, *, num_subjects: int = 6, seed: int = 0, **changes: object) -> Predictions:
    """Two recordings of four windows for every subject; log-odds lean to the right class by ``quality``."""
    n = 8 * num_subjects
    labels = np.tile([0, 0, 0, 0, 1, 1, 1, 1], num_subjects)
    odds = np.random.default_rng(seed).normal(size=n) + quality * (2 * labels - 1)
    columns = {
        "row": np.arange(n),
        "recording": np.array([f"r{index // 4:02d}" for index in range(n)], dtype=object),
        "subject": np.array([f"s{index // 8:02d}" for index in range(n)], dtype=object),
        "start_s": np.arange(n) % 4 * 2.0,
        "label_index": labels,
        "log_likelihoods": np.stack([-2 - odds / 2, -2 + odds / 2], axis=1),
        "greedy_valid": np.ones(n, dtype=bool),
    }
    return Predictions(
        task="workload", labels=("rest", "arithmetic"), positive_class=1, split="test", **columns | changes
    )


def write_evaluated(
    out: Path,
    *found: Predictions,
    seed: int = 0,
    test_openings: int = 1,
    digest: str = "da7a",
    config_digest: str | None = None,
) -> Path:
    """Results and predictions of one evaluation; seeds have config digests of their own, as baselines do."""
    for predictions in found:
        predictions.save(out / "predictions" / f"{predictions.task}.parquet")
    write_results(
        out / "results.json",
        {one.task: score(one) for one in found},
        config_digest=config_digest or f"config{seed}",
        data_digest=digest,
        git_commit="abc1234",
        seed=seed,
        test_openings=test_openings,
        details={one.task: details(one) for one in found},
    )
    return out
