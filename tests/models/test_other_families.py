"""A NeuroLM around a language model that is no GPT-2: rotary positions, grouped queries, a tied head."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from neurolm.config import UserError
from neurolm.models.language_model import LanguageModel, LanguageModelConfig
from neurolm.models.masks import eeg_text_mask, eeg_text_positions, stair_step_mask
from neurolm.models.neurolm import NeuroLM, NeuroLMConfig
from neurolm.sequences import WindowGroup
from tests.llama import write_llama
from tests.tiny import TOKENIZER, group_of, stored_window, tiny_tokenizer

TEXT = [5, 9, 40, 299]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def model(folder: Path) -> NeuroLM:
    torch.manual_seed(0)
    settings = LanguageModelConfig(name_or_path=str(folder))
    model = NeuroLM(NeuroLMConfig(tokenizer=TOKENIZER, language_model=settings)).eval()
    model.tokenizer.load_state_dict(tiny_tokenizer().state_dict())
    return model


@pytest.fixture
def group() -> WindowGroup:
    return group_of([stored_window(3, 800, seed=seed) for seed in range(4)])


def hidden(model: NeuroLM, group: WindowGroup, features: Tensor, time: Tensor | None = None) -> Tensor:
    """Hidden states of a group's EEG and of a text after it; ``time`` replaces the positions, not the mask."""
    text = model.embed_text(torch.tensor(TEXT).expand(len(features), -1))
    embeddings = torch.cat([model.embed_eeg(features, group.channel_index), text], dim=1)
    positions = eeg_text_positions(group.time_index if time is None else time, len(TEXT))
    return model.hidden(embeddings, positions[None], eeg_text_mask(group.time_index, len(TEXT)))


def test_sep_and_codes_follow_the_models_own_ids(model: NeuroLM, folder: Path) -> None:
    own = LlamaForCausalLM.from_pretrained(folder)
    assert own.get_output_embeddings().weight.data_ptr() == own.get_input_embeddings().weight.data_ptr()
    table, head = model.language_model.base.get_input_embeddings().weight, model.language_model.head.weight
    assert model.text_code.sep == 300 and model.first_code_class == 320 and model.num_classes == 320 + 32
    assert table.shape == (320, 16) and head.shape == (352, 16)
    assert torch.equal(table[:300], own.get_input_embeddings().weight) and torch.equal(head[:300], table[:300])
    assert head.data_ptr() != table.data_ptr()


@torch.no_grad()
def test_text_reads_as_in_the_model_itself(model: NeuroLM, folder: Path) -> None:
    own = LlamaForCausalLM.from_pretrained(folder).eval()
    ids = torch.tensor([model.text_code.encode("Question: Is this EEG segment of high workload?")])
    states = model.hidden(model.embed_text(ids), torch.arange(ids.shape[1])[None])
    torch.testing.assert_close(model.logits(states)[..., :300], own(ids).logits, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_later_seconds_change_no_earlier_state(model: NeuroLM, group: WindowGroup) -> None:
    features = model.features(group.signal, group.channel_index, group.time_indices)
    changed = features.clone()
    changed[:, group.time_index >= 2] += 1
    difference = (hidden(model, group, features) - hidden(model, group, changed)).abs().amax((0, 2))
    is_later = torch.cat([group.time_index >= 2, torch.ones(len(TEXT), dtype=torch.bool)])
    assert (difference[~is_later] == 0).all() and (difference[is_later] > 1e-3).all()


@torch.no_grad()
def test_permuted_channels_give_permuted_states(model: NeuroLM, group: WindowGroup) -> None:
    features = model.features(group.signal, group.channel_index, group.time_indices)
    order = torch.tensor([2, 0, 1])
    places = torch.cat([3 * second + order for second in range(4)])
    permuted = replace(group, channel_index=group.channel_index[:, places])
    before, after = hidden(model, group, features), hidden(model, permuted, features[:, places])
    torch.testing.assert_close(after[:, :12], before[:, places], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(after[:, 12:], before[:, 12:], atol=1e-5, rtol=1e-4)
    assert (after[:, :12] - before[:, :12]).abs().max() > 0.1


@torch.no_grad()
def test_the_rotation_carries_the_time(model: NeuroLM, group: WindowGroup) -> None:
    features = model.features(group.signal, group.channel_index, group.time_indices)
    before = hidden(model, group, features)
    later = hidden(model, group, features, torch.where(group.time_index >= 2, group.time_index + 5, group.time_index))
    assert (before - later)[:, :6].abs().max() == 0  # seconds 0 and 1 see nothing that moved
    assert ((before - later)[:, 6:].abs().amax((0, 2)) > 1e-3).all()
    shifted = hidden(model, group, features, group.time_index + 7)
    torch.testing.assert_close(shifted, before, atol=1e-5, rtol=1e-4)  # a rotation knows differences only


@torch.no_grad()
def test_a_batch_equals_its_windows_alone(model: NeuroLM, group: WindowGroup) -> None:
    features = model.features(group.signal, group.channel_index, group.time_indices)
    together = hidden(model, group, features)
    for row in range(4):
        alone = replace(group, channel_index=group.channel_index[row : row + 1])
        torch.testing.assert_close(
            hidden(model, alone, features[row : row + 1])[0], together[row], atol=1e-5, rtol=1e-4
        )


@torch.no_grad()
def test_grouped_queries_see_what_the_mask_shows(model: NeuroLM, group: WindowGroup) -> None:
    """A token that sees only itself is as if it were alone; one that sees more is not."""
    features = model.features(group.signal, group.channel_index, group.time_indices)
    embeddings = model.embed_eeg(features, group.channel_index)
    own = torch.eye(12, dtype=torch.bool)
    masked = model.hidden(embeddings, group.time_index[None], own)
    single = [
        model.hidden(embeddings[:, [i]], group.time_index[None, [i]], torch.ones(1, 1, dtype=torch.bool))
        for i in range(12)
    ]
    torch.testing.assert_close(masked, torch.cat(single, 1), atol=1e-5, rtol=1e-4)
    assert (
        masked - model.hidden(embeddings, group.time_index[None], stair_step_mask(group.time_index))
    ).abs().max() > 0.1


@torch.no_grad()
def test_a_standalone_config_builds_the_model_again_without_the_folder(tmp_path: Path) -> None:
    write_llama(tmp_path / "llama")
    model = LanguageModel(LanguageModelConfig(name_or_path=str(tmp_path / "llama")), codebook_size=8).eval()
    settings = model.standalone_config()
    assert (settings.name_or_path, settings.hidden_size, settings.context) == (None, 16, 128)
    assert settings.architecture is not None and str(tmp_path) not in str(settings.architecture)
    (tmp_path / "llama").rename(tmp_path / "gone")
    again = LanguageModel(settings, codebook_size=8, text_code=model.text_code).eval()
    again.load_state_dict(model.state_dict())
    ids, positions = torch.tensor([[1, 0, 300, 7]]), torch.tensor([[0, 0, 3, 4]])
    assert torch.equal(
        *(one.logits(one.hidden(one.embed_text(ids), positions)) for one in (model, again))  # type: ignore[arg-type]
    )
    assert again.standalone_config() == settings


def test_the_row_of_the_end_of_text_learns_though_it_pads(folder: Path) -> None:
    model = LanguageModel(LanguageModelConfig(name_or_path=str(folder)), codebook_size=8)
    for one in (model, LanguageModel(model.standalone_config(), 8, model.text_code)):
        one.embed_text(torch.tensor([[0, 1]])).sum().backward()
        assert one.base.get_input_embeddings().weight.grad[:3].amax(1).tolist() == [1, 1, 0]


def test_random_weights_of_any_architecture() -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 16}
    sizes |= {"num_key_value_heads": 1, "intermediate_size": 8}
    model = LanguageModel(LanguageModelConfig(architecture={"model_type": "qwen3", **sizes}), codebook_size=8)
    assert model.base.config.model_type == "qwen3" and model.num_classes == 50304 + 8
    assert float(model.head.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert model.standalone_config().architecture == {"model_type": "qwen3", **sizes}


def test_settings_that_contradict_each_other_are_refused(folder: Path) -> None:
    for settings, message in (
        ({"gguf_file": "some.gguf"}, "gguf_file is set, but no pretrained model: set name_or_path too"),
        ({"lora": {}}, "lora is set, but no pretrained model"),
        ({"name_or_path": "some", "architecture": {"model_type": "llama"}}, "set one of them to null"),
    ):
        with pytest.raises(ValueError, match=message):
            LanguageModelConfig(**settings)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"has 300 text ids, more than language_model\.text_vocabulary_size = 64"):
        LanguageModel(LanguageModelConfig(name_or_path=str(folder), text_vocabulary_size=64), codebook_size=8)
    with pytest.raises(UserError, match=r"cannot load .*no\.gguf"):
        LanguageModel(LanguageModelConfig(name_or_path=str(folder), gguf_file="no.gguf"), codebook_size=8)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ({"model_type": "bart", "d_model": 16, "decoder_layers": 1, "decoder_attention_heads": 2}, "no position ids"),
        ({"model_type": "phi", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}, "has a bias"),
        ({"model_type": "bloom", "hidden_size": 16, "n_layer": 1, "n_head": 2}, "architecture: transformers cannot"),
        (
            {"model_type": "falcon", "hidden_size": 16, "num_attention_heads": 2},
            "architecture: transformers cannot build",
        ),
        ({"model_type": "none such"}, "architecture: transformers cannot build it"),
        ({}, "architecture: transformers cannot build it: .*model_type"),
    ],
)
def test_a_family_that_cannot_be_driven_is_refused(architecture: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LanguageModel(LanguageModelConfig(architecture=architecture), codebook_size=8)
