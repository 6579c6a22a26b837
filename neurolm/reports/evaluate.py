"""The final word on a model: its answers on the test split, opened once more and counted."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from neurolm.config import Location, UserError, config
from neurolm.datasets.ingest import Step
from neurolm.eeg.shards import Store, WindowIndex, open_test_split
from neurolm.evaluation.perplexity import LANGUAGE
from neurolm.evaluation.predicting import predict_split
from neurolm.reports.evaluated import write_evaluated
from neurolm.text.asked import count_left_out
from neurolm.text.task import Task
from neurolm.text.wording import option_orders_of
from neurolm.tracking.code import git_commit
from neurolm.training.assembly import load_neurolm
from neurolm.training.leakage import allowed_reason, check_leakage
from neurolm.training.tasks import tasks_of_model

logger = logging.getLogger(__name__)


@config
class EvaluateRun(Step):
    """Evaluate a tuned model on the test split."""

    model: Location | None = None
    """Model folder; null: ``instruct/model`` in ``out``."""
    tasks: tuple[str, ...] | None = None
    """Tasks to evaluate; null: those the model was tuned on."""
    batch_size: Annotated[int, Field(gt=0)] = 64
    """Windows in one forward pass."""
    released_protocol: bool = False
    """Also let the model write answers and read them as the released code does; that takes about four times as long."""
    option_orders: Annotated[int, Field(gt=0)] = 1
    """Orders of a lettered task's options over which probabilities are averaged; 1: the task's own order alone."""

    @property
    def model_folder(self) -> Path:
        """The model to evaluate."""
        return self.model or self.out / "instruct" / "model"


@dataclass(frozen=True)
class Evaluation:
    """What was written where."""

    results: dict[str, Any]
    path: Path
    page: Path


def evaluate(run: EvaluateRun, device: str = "cpu") -> Evaluation:
    """Score every task on the test split; write results.json and evaluation.html. Raises UserError."""
    model, values = load_neurolm(run.model_folder)
    names = run.tasks or tuple(values["tasks"])
    if not names:
        raise UserError(
            f"{run.model_folder}: a model of stage {values['trained']['stage']}, tuned on no task; run stage 3"
        )
    tasks = tasks_of_model(values, names, model.text_code)
    digest = Store.open(run.store).digest
    if digest != values["trained"]["data_digest"]:
        logger.warning(
            "the model was trained on other data (%s) than is evaluated (%s)", values["trained"]["data_digest"], digest
        )
    leakage = check_leakage(run, allowed_reason(run.data.allow_leakage, run.model_folder))
    opening = open_test_split(digest, reason=f"evaluate {run.out}")
    store = Store.open(run.store, opening=opening)
    index = store.index("test", sorted({task.task.data_set for task in tasks.values()}))
    found = predict_split(
        model.to(device),
        store,
        index,
        tasks,
        split="test",
        batch_size=run.batch_size,
        device=torch.device(device),
        released_protocol=run.released_protocol,
        option_orders=run.option_orders,
    )
    for name, predictions in found.items():
        if not len(predictions.row):
            raise UserError(f"{run.store}: no test windows for task {name}; give the split at least one test subject")
    evaluated = write_evaluated(
        run.out,
        found,
        config_digest=values["trained"]["config_digest"],
        data_digest=digest,
        git_commit=git_commit(),
        seed=values["trained"]["seed"],
        test_openings=opening.count,
        leakage=leakage,
        asked={name: _how_asked(run, task.task, index) for name, task in tasks.items()},
        language=_language(values["trained"]),
        changed=values["trained"].get("changed", ()),
    )
    return Evaluation(evaluated.results, evaluated.results_path, run.out / "evaluation.html")


def _how_asked(run: EvaluateRun, task: Task, index: WindowIndex) -> dict[str, Any]:
    """What differs from asking every window once in the task's own words; nothing where nothing does."""
    orders, left_out = len(option_orders_of(task, run.option_orders)), count_left_out(index, task)
    return ({"option_orders": orders} if orders > 1 else {}) | ({"left_out": left_out} if left_out else {})


def _language(trained: Mapping[str, Any]) -> dict[str, dict[str, float]] | None:
    """The loss of held-out text before the model's last stage and after; None where it was not measured."""
    measured = {"before": trained.get("language_before", {}), "after": trained["validation"]}
    found = {
        when: {name.removeprefix(LANGUAGE): value for name, value in values.items() if name.startswith(LANGUAGE)}
        for when, values in measured.items()
    }
    return found if all(found.values()) else None
