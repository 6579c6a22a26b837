import pytest
import torch

from neurolm.models.alignment import (
    EEG_DOMAIN,
    TEXT_DOMAIN,
    DomainClassifier,
    gradient_reversal,
)


@pytest.mark.parametrize("alpha", [0.37, torch.tensor(0.37)])
def test_reversal_is_the_identity_with_a_reversed_gradient(alpha: float | torch.Tensor) -> None:
    x, weights = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4)
    y = gradient_reversal(x, alpha)
    assert torch.equal(y, x)
    (y * weights).sum().backward()
    torch.testing.assert_close(x.grad, -0.37 * weights)


def test_loss_sum_is_the_cross_entropy_of_every_token() -> None:
    classifier, features = DomainClassifier(8), torch.randn(2, 5, 8)
    log_probabilities = classifier(features).log_softmax(-1)
    for domain in (EEG_DOMAIN, TEXT_DOMAIN):
        torch.testing.assert_close(classifier.loss_sum(features, domain), -log_probabilities[..., domain].sum())
