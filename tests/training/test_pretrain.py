import dataclasses

import numpy as np
import pytest
import torch

from neurolm.models.neurolm import NeuroLM
from neurolm.sequences import collate, eeg_features
from neurolm.training.context import LocalContext
from neurolm.training.pretrain import PretrainLossConfig, PretrainStage
from tests.tiny import MODEL, group_of, mixed_windows, stored_window, tiny_neurolm, total_counts


def test_loss_is_that_of_every_target_looked_up_by_hand() -> None:
    stage = PretrainStage(tiny_neurolm(), PretrainLossConfig())
    batch = collate(mixed_windows(), np.arange(7), text=None, tasks=None)
    shares = stage(batch, total_counts([batch]))
    losses = []
    model = stage.model
    for window in mixed_windows():
        group = group_of([window])
        features = model.features(group.signal, group.channel_index, group.time_indices)
        codes = model.codes(features)
        time = group.time_index
        mask = torch.tensor([[bool(time[j] <= time[i]) for j in range(len(time))] for i in range(len(time))])
        hidden = model.hidden(model.embed_eeg(features, group.channel_index), time[None], mask)
        log_probabilities = model.logits(hidden).log_softmax(-1)
        for token in range(len(time)):
            for later in range(len(time)):
                is_same_channel = group.channel_index[0, token] == group.channel_index[0, later]
                if is_same_channel and time[later] == time[token] + 1:
                    losses.append(-log_probabilities[0, token, 50304 + codes[0, later]].item())
    assert len(losses) == batch.counts["eeg_targets"]
    assert float(shares["eeg_loss"].detach()) == pytest.approx(np.mean(losses), rel=1e-5)


def test_the_tokenizer_is_frozen_and_the_rest_learns() -> None:
    stage = PretrainStage(tiny_neurolm(), PretrainLossConfig())
    before = {name: tensor.clone() for name, tensor in stage.model.tokenizer.state_dict().items()}
    batch = collate([stored_window()], np.arange(1), text=np.arange(6)[None], tasks=None)
    stage.train()
    stage(batch, total_counts([batch]))["loss"].backward()
    without = [name for name, one in stage.named_parameters() if one.grad is None]
    assert without and all(name.startswith("model.tokenizer.") for name in without)
    assert all(torch.equal(before[name], tensor) for name, tensor in stage.model.tokenizer.state_dict().items())


def test_features_are_standardised_by_the_first_batch_and_stay_so() -> None:
    torch.manual_seed(0)
    stage = PretrainStage(NeuroLM(dataclasses.replace(MODEL, feature_norm="first_batch")), PretrainLossConfig())
    stage.model.tokenizer.load_state_dict(tiny_neurolm().tokenizer.state_dict())
    batch = collate(mixed_windows(), np.arange(7), text=None, tasks=None)
    stage.before_training([batch], LocalContext())
    assert stage.model.standardisation is not None
    read = torch.cat(
        [stage.model.standardisation(eeg_features(stage.model, group)).flatten(0, 1) for group in batch.groups]
    )
    torch.testing.assert_close(read.mean(0), torch.zeros(16), atol=1e-4, rtol=0)
    torch.testing.assert_close(read.std(0, unbiased=False), torch.ones(16), atol=1e-3, rtol=0)
    assert "model.standardisation.mean" in stage.state_dict()  # later stages load it with the weights


def test_windows_of_one_second_train_on_text_alone() -> None:
    stage = PretrainStage(tiny_neurolm(), PretrainLossConfig())
    batch = collate([stored_window(2, 200)], np.arange(1), text=np.arange(6)[None], tasks=None)
    shares = stage(batch, total_counts([batch]))
    shares["loss"].backward()
    assert float(shares["eeg_loss"]) == 0 and float(shares["text_loss"]) > 0
