import math

import pytest
import torch
import torch.nn.functional as F

from neurolm.evaluation.perplexity import language_metrics
from tests.tiny import tiny_neurolm


def test_perplexity_is_that_of_text_ids_alone_however_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_neurolm().eval()
    crops = torch.randint(0, 50257, (3, 12), generator=torch.Generator().manual_seed(1))
    losses = []
    with torch.no_grad():
        for crop in crops:
            positions = torch.arange(11)[None]
            logits = model.logits(model.hidden(model.embed_text(crop[None, :-1]), positions))[0, :, :50257]
            losses.append(F.cross_entropy(logits.double(), crop[1:], reduction="sum"))
    expected = float(sum(losses)) / 33
    found = language_metrics(model, crops, num_bytes=100)
    assert found["language_nats_per_token"] == pytest.approx(expected, rel=1e-5)
    assert found["language_nats_per_byte"] == pytest.approx(expected * 33 / 100, rel=1e-5)
    assert found["language_perplexity"] == pytest.approx(math.exp(expected), rel=1e-4)
    monkeypatch.setattr("neurolm.evaluation.perplexity.POSITIONS_AT_ONCE", 4)
    assert language_metrics(model, crops, num_bytes=100) == pytest.approx(found, rel=1e-5)


def test_a_model_that_knows_nothing_has_as_many_choices_as_ids() -> None:
    model = tiny_neurolm().eval()
    with torch.no_grad():
        model.language_model.head.weight[:50257].zero_()
        model.language_model.head.weight[50257:].fill_(100.0)  # codes would take all probability
    found = language_metrics(model, torch.randint(0, 50257, (2, 5)), num_bytes=8)
    assert found["language_perplexity"] == pytest.approx(50257, rel=1e-4)
    assert found["language_nats_per_byte"] == pytest.approx(math.log(50257), rel=1e-5)
