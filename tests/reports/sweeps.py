"""Sweeps made up for tests: a small one by hand, and larger ones of every shape."""

import math
import random

from neurolm.reports.confirmation import Confirmation, SeedRun
from neurolm.reports.sweep import SweepRecord, TrialRecord

TRIALS = [
    TrialRecord(
        0, {"epochs": 2, "optimizer.learning_rate": 1e-5}, "complete", None, [(1, 0.51), (2, 0.55)], 0.55, 61.0
    ),
    TrialRecord(1, {"epochs": 4, "optimizer.learning_rate": 3e-4}, "complete", None, [(1, 0.6), (2, 0.71)], 0.71, 64.0),
    TrialRecord(
        2, {"epochs": 3, "optimizer.learning_rate": 1e-3}, "pruned", "stopped after 1 of 2", [(1, 0.74)], 0.74, 30.0
    ),
    TrialRecord(
        3, {"epochs": 3, "optimizer.learning_rate": 1.0}, "failed", "loss <nan> & gone", [(1, math.nan)], math.nan, 9.0
    ),
    TrialRecord(4, {"epochs": 3, "optimizer.learning_rate": 2.0}, "failed", "RayError: lost", [], None, None),
]
SWEEP = SweepRecord(
    metric="validation balanced_accuracy, mean over workload",
    space={"optimizer.learning_rate": "log_uniform [1e-05, 2]", "epochs": "integer [2, 4]"},
    trials=TRIALS,
    importances={"optimizer.learning_rate": 0.8, "epochs": 0.2},
    num_validations=2,
)


def large_sweep(num_trials: int = 26, tasks: tuple[str, ...] = ("workload", "sleep"), **changes: object) -> SweepRecord:
    """Trials over six settings, one of them conditional; the second task peaks later than the first."""
    rng = random.Random(5)
    trials = []
    for number in range(num_trials):
        is_lora = number % 3 == 0
        parameters = {
            "optimizer.learning_rate": 10 ** rng.uniform(-4.3, -2.3),
            "optimizer.weight_decay": rng.choice([0.0, 0.01, 0.1]),
            "optimizer.warmup_ratio": rng.uniform(0.02, 0.3),
            "batch.size": rng.choice([32, 64, 128]),
            "lora.enabled": is_lora,
        } | ({"lora.rank": rng.choice([4, 8])} if is_lora else {})
        good = -0.08 * (math.log10(parameters["optimizer.learning_rate"]) + 3.2) ** 2
        length = 8 if number % 3 != 2 else 2
        curves = {
            task: [
                (1e5 * step, 0.6 + good + 0.03 * place - 0.004 * (step - 4 - 2 * place) ** 2 + rng.gauss(0, 0.002))
                for step in range(1, length + 1)
            ]
            for place, task in enumerate(tasks)
        }
        curve = [
            (at, sum(curves[task][place][1] for task in tasks) / len(tasks))
            for place, (at, _) in enumerate(curves[tasks[0]])
        ]
        state = "complete" if length == 8 else "failed" if number == 5 else "pruned"
        reason = {"failed": "DivergedError: step 312: loss not finite", "pruned": "ASHA stopped it"}.get(state)
        trials.append(
            TrialRecord(
                number, parameters, state, reason, curve, max(value for _, value in curve), 60.0 * length,
                task_curves=curves, gpu_hours=0.1 * length, cpu_hours=0.2 * length,
                origin="first" if number == 0 else "sampler",
            )
        )  # fmt: skip
    values: dict[str, object] = {
        "metric": f"validation AUROC, mean over {', '.join(tasks)}",
        "space": {
            "optimizer.learning_rate": "log_uniform [5e-05, 0.005]",
            "optimizer.weight_decay": "choice [0.0, 0.01, 0.1]",
            "optimizer.warmup_ratio": "uniform [0.02, 0.3]",
            "batch.size": "choice [32, 64, 128]",
            "lora.enabled": "choice [true, false]",
            "lora.rank": "choice [4, 8] if lora.enabled is true",
        },
        "trials": trials,
        "importances": {"optimizer.learning_rate": 0.6, "batch.size": 0.2, "lora.enabled": 0.2},
        "num_validations": 8,
        "budget_unit": "instruction token",
        "full_budget": 8e5,
        "sampler": "TPE",
        "pruner": "ASHA",
        "directions": {"score": "max"},
    }
    return SweepRecord(**(values | changes))


def confirmed(best: list[float | None], paper: list[float | None], **changes: object) -> Confirmation:
    """A confirmation with these scores, a seed each from 1 on; None is a run without one."""

    def runs(name: str, scores: list[float | None]) -> list[SeedRun]:
        return [
            SeedRun(seed, f"confirm-{name}-seed-{seed}", score, {} if score is None else {"workload": score}, 60.0,
                    "RuntimeError: gone" if score is None else None)
            for seed, score in enumerate(scores, start=1)
        ]  # fmt: skip

    values: dict[str, object] = {
        "metric": "validation AUROC, mean over workload",
        "seeds": list(range(1, len(best) + 1)),
        "best_trial": 1,
        "sweep_score": 0.71,
        "reference": "the paper's setting",
        "reference_parameters": {"epochs": 2},
        "is_same": False,
        "best_runs": runs("best", best),
        "reference_runs": runs("paper", paper),
    }
    return Confirmation(**(values | changes))
