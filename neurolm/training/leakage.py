"""The gate before training and evaluation: nothing that is trained on may be in a test split, unless somebody says why.

TUEG, for example, holds the people of TUAB, TUEV and TUSL. Subjects are compared by keyed id where stores were made
with one key, signals by fingerprint always; labels and signals of the test split stay sealed.
"""

import logging
from pathlib import Path
from typing import Any

import yaml

from neurolm.config import UserError
from neurolm.datasets.ingest import Step
from neurolm.eeg.leakage import Overlap, overlap
from neurolm.eeg.manifest import MANIFEST

logger = logging.getLogger(__name__)


class LeakageError(UserError):
    """Training data and a test split share subjects or signals."""


def check_leakage(step: Step, reason: str | None) -> dict[str, Any] | None:
    """Compare every store that ``step`` knows with the test split of its downstream store.

    Args:
        step: any step of the pipeline.
        reason: why leakage is allowed; None: it is not.

    Returns:
        What has to stand beside every result: ``reason``, ``num_subjects`` and ``num_recordings`` of the test split
        that are trained on; None where no leakage was allowed.

    Raises:
        LeakageError: there is leakage and no reason.
        FingerprintsMissing: a store was written without fingerprints.
    """
    if not _is_store(step.store):
        logger.warning("%s: no downstream store yet, so leakage into its test split is checked later", step.store)
        return None if reason is None else {"reason": reason, "num_subjects": None, "num_recordings": None}
    overlaps = {training: overlap(training, step.store) for training in _training_stores(step)}
    found = {training: shared for training, shared in overlaps.items() if shared}
    for training, shared in overlaps.items():
        _log_limits(training, step.store, shared)
    if reason is None:
        if found:
            raise LeakageError(_explain(step, found))
        return None
    for training, shared in found.items():
        logger.warning("leakage from %s allowed (%s): %s", training, reason, shared.describe())
    return {
        "reason": reason,
        "num_subjects": len(set().union(*(shared.test_subjects for shared in found.values()))),
        "num_recordings": len(set().union(*(shared.test_recordings for shared in found.values()))),
    }


def allowed_reason(reason: str | None, earlier_model: Path | None) -> str | None:
    """Why leakage was allowed in this run or, failing that, in the training of the model that it starts from."""
    if reason is not None or earlier_model is None:
        return reason
    trained = yaml.safe_load((earlier_model / "config.yaml").read_text()).get("trained", {})
    earlier: str | None = trained.get("allow_leakage")
    return earlier


def _training_stores(step: Step) -> list[Path]:
    stores = [step.pretraining_store, step.store] if step.has_pretraining_data else [step.store]
    return [store for store in stores if _is_store(store)]


def _is_store(path: Path) -> bool:
    return (path / MANIFEST).is_file()


def _explain(step: Step, found: dict[Path, Overlap]) -> str:
    lines = []
    for training, shared in found.items():
        where = "its own test split" if training == step.store else f"the test split of {step.store}"
        lines.append(f"{training} trains on what {where} holds: {shared.describe()}")
    return (
        f"leakage: {'. '.join(lines)}. Scores on that test split would say nothing about new people. Leave these "
        f"recordings out of training and make the store again (which files they are: {step.out / 'private'}), or say "
        "why it may be: data.allow_leakage='REASON'; the reason then stands beside every result"
    )


def _log_limits(training: Path, test: Path, shared: Overlap) -> None:
    if shared.num_test_recordings and not shared.has_one_key:
        logger.warning("%s and %s have other keys: only signals were compared, not subjects", training, test)
    if shared.num_unrecognisable:
        logger.warning(
            "%d recordings of %s and %s are too short or flat to be recognised",
            shared.num_unrecognisable,
            training,
            test,
        )
