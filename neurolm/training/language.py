"""Whether a run forgets the language: the loss of held-out text before training and at every validation."""

import torch

from neurolm.evaluation.perplexity import language_metrics
from neurolm.models.neurolm import NeuroLM
from neurolm.text.corpus import TextCorpus


class LanguageCheck:
    """Measures a model on the same crops of the corpus' validation part each time; says nothing without crops.

    All workers read all of them, so that they make the same passes and find the same numbers.
    """

    def __init__(self, model: NeuroLM | None, corpus: TextCorpus | None, num_crops: int, length: int) -> None:
        self._model = model
        if model is not None and corpus is not None and num_crops:
            crops, self._num_bytes = corpus.held_out(num_crops, min(length, model.context))
            self._crops = torch.from_numpy(crops)
        else:
            self._model = None

    def __call__(self) -> dict[str, float]:
        """`language_metrics`, or nothing. The model is to be in evaluation mode."""
        if self._model is None:
            return {}
        weight = next(self._model.language_model.parameters())
        # Without autocast, unless weights in bfloat16 leave no choice; as answers are validated.
        with torch.autocast(weight.device.type, dtype=torch.bfloat16, enabled=weight.dtype == torch.bfloat16):
            return language_metrics(self._model, self._crops.to(weight.device), self._num_bytes)
