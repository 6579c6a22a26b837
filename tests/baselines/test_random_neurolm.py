from pathlib import Path

import pytest
import torch

from neurolm.baselines.fitted import predictions_of
from neurolm.baselines.prediction import fit_baseline
from neurolm.baselines.random_neurolm import RandomNeuroLM, untrained_neurolm
from neurolm.config import UserError, as_dict, override
from neurolm.evaluation.predictions import score
from neurolm.models.neurolm import NeuroLM
from neurolm.tracking import JsonlTracker, read_curves
from neurolm.training.checkpoint import save_model
from tests.baselines.toy import TASK, indices, toy_run, toy_store
from tests.tiny import MODEL

CONFIG = override(MODEL, {"feature_norm": "first_batch", "tokenizer.hidden_size": 32, "language_model.hidden_size": 32})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(7)
    model = NeuroLM(CONFIG)
    torch.nn.init.ones_(model.language_model.head.weight)
    save_model(tmp_path / "model", "neurolm", {"model": as_dict(CONFIG)}, model.state_dict())
    return tmp_path / "model"


def test_nothing_of_the_weights_is_taken_over(folder: Path) -> None:
    first, again, other = (untrained_neurolm(folder, seed) for seed in (0, 0, 1))
    weights = [model.language_model.head.weight for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert first.config == CONFIG and weights[0].std().item() == pytest.approx(0.02, rel=0.05)


def test_it_is_tuned_on_the_task_with_its_encoder_frozen(folder: Path, tmp_path: Path) -> None:
    store = toy_store(tmp_path / "store")
    train, val = indices(store)
    run = toy_run(
        tmp_path,
        pretrained=str(folder),
        losses={"pooled_weight": 1.0},
        training_of={"random_neurolm": {"epochs": 6, "optimizer.learning_rate": 5e-3}},
    )
    before = untrained_neurolm(folder, run.seed)
    tracker = JsonlTracker(tmp_path / "tracking.jsonl")
    fitted = fit_baseline(run, "random_neurolm", TASK, store, train, val, tracker=tracker)
    tracker.close()
    curves = read_curves(tmp_path / "tracking.jsonl")
    assert curves["loss"][-1][1] < 0.9 * curves["loss"][0][1]
    assert isinstance(fitted, RandomNeuroLM)
    found = predictions_of(fitted, TASK, store, val, "val")
    best = max(value for _, value in curves["validation/score"])
    assert score(found).balanced_accuracy == fitted.validation_score == best
    encoder, tuned = before.tokenizer.state_dict(), fitted.model.tokenizer.state_dict()
    assert all(torch.equal(encoder[name], tuned[name]) for name in encoder)
    assert fitted.model.standardisation is not None
    assert not torch.equal(fitted.model.standardisation.deviation, torch.ones(32))  # measured on the first batch
    trainable = sum(one.numel() for one in before.parameters() if one.requires_grad)
    assert fitted.num_parameters == trainable


def test_a_folder_without_a_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model here"):
        untrained_neurolm(tmp_path, 0)
