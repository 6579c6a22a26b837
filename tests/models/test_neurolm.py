import pytest
import torch

from neurolm.models.language_model import LanguageModelConfig
from neurolm.models.losses import next_second_codes
from neurolm.models.masks import (
    answer_tree_mask,
    answer_tree_positions,
    eeg_text_mask,
    eeg_text_positions,
    stair_step_mask,
)
from neurolm.models.neural_tokenizer import NeuralTokenizer
from neurolm.models.neural_tokenizer_config import NeuralTokenizerConfig
from neurolm.models.neurolm import NeuroLM, NeuroLMConfig

NUM_CHANNELS, NUM_SECONDS = 3, 4
TIME = torch.arange(NUM_SECONDS).repeat_interleave(NUM_CHANNELS)


def tiny(width: int = 16, text_ids: int = 40) -> NeuroLM:
    tokenizer = NeuralTokenizerConfig(
        hidden_size=16, num_layers=2, num_heads=2, decoder_layers=1, codebook_size=32, codebook_dim=8
    )
    language_model = LanguageModelConfig(hidden_size=width, num_layers=2, num_heads=2, text_vocabulary_size=text_ids)
    return NeuroLM(NeuroLMConfig(tokenizer=tokenizer, language_model=language_model)).eval()


def windows(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    channel_index = torch.tensor([5, 0, 9]).repeat(NUM_SECONDS)
    return torch.randn(batch, len(TIME), 200), channel_index.expand(batch, -1), TIME.expand(batch, -1)


def eeg_hidden(model: NeuroLM, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> torch.Tensor:
    features = model.features(*batch)
    embeddings = model.embed_eeg(features, batch[1])
    return model.hidden(embeddings, batch[2], stair_step_mask(batch[2][0]))


def test_the_tokenizer_stays_frozen() -> None:
    model = tiny().train()
    assert model.training and model.language_model.training and not model.tokenizer.training
    assert not any(parameter.requires_grad for parameter in model.tokenizer.parameters())
    before = {name: buffer.clone() for name, buffer in model.tokenizer.named_buffers()}
    features = model.features(*windows())
    codes = model.codes(features)
    assert not features.requires_grad and codes.shape == (2, 12)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.tokenizer.named_buffers())


def test_every_trained_parameter_gets_a_gradient() -> None:
    model, batch = tiny(width=24).train(), windows()
    eeg_hidden(model, batch).square().sum().backward()
    model.logits(model.embed_text(torch.tensor([[1]]))).sum().backward()
    without = [
        name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None
    ]
    assert without == []


@pytest.mark.parametrize("width", [16, 24])
def test_projection_only_where_the_widths_differ(width: int) -> None:
    model = tiny(width)
    assert len(list(model.projection.parameters())) == (0 if width == 16 else 2)
    assert eeg_hidden(model, windows()).shape == (2, 12, width)


def test_a_window_alone_and_in_a_batch_gives_the_same() -> None:
    model, batch = tiny(), windows(3)
    together = eeg_hidden(model, batch)
    alone = torch.cat([eeg_hidden(model, tuple(tensor[i : i + 1] for tensor in batch)) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_permuting_channels_leaves_the_loss_as_it_is() -> None:
    model, (signal, channel_index, time_index) = tiny(), windows()
    order = torch.arange(len(TIME)).view(NUM_SECONDS, NUM_CHANNELS)[:, [2, 0, 1]].flatten()

    def loss(order: torch.Tensor) -> float:
        batch = (signal[:, order], channel_index[:, order], time_index[:, order])
        codes = model.codes(model.features(*batch))
        targets = 40 + next_second_codes(codes, NUM_CHANNELS)
        with torch.no_grad():
            return float(model.cross_entropy(eeg_hidden(model, batch)[:, :-NUM_CHANNELS], targets).total)

    assert loss(order) == pytest.approx(loss(torch.arange(len(TIME))), rel=1e-5)


def test_later_seconds_change_no_earlier_hidden_state_of_the_language_model() -> None:
    """Given the features, that is: the encoder itself sees the whole window."""
    model, (signal, channel_index, time_index) = tiny(), windows(1)
    features = model.features(signal, channel_index, time_index)
    changed = features.clone()
    changed[:, -NUM_CHANNELS:] += torch.randn(NUM_CHANNELS, 16)
    states = [
        model.hidden(model.embed_eeg(x, channel_index), time_index, stair_step_mask(TIME)) for x in (features, changed)
    ]
    notices = (states[0] - states[1]).abs().amax(-1)[0] > 1e-5
    assert notices.tolist() == [False] * 9 + [True] * 3


def test_answers_of_one_forward_read_as_if_each_stood_alone() -> None:
    model, batch = tiny(), windows(2)
    prompt, answers = [1, 2, 3], [[4, 5], [6], [4, 7, 8]]
    features = model.features(*batch)
    eeg = model.embed_eeg(features, batch[1])

    def hidden(ids: list[int], positions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        embeddings = torch.cat([eeg, model.embed_text(torch.tensor([ids] * 2))], dim=1)
        return model.hidden(embeddings, positions[None].expand(2, -1), mask)

    lengths = [len(answer) for answer in answers]
    tree = hidden(sum(answers, prompt), answer_tree_positions(TIME, 3, lengths), answer_tree_mask(TIME, 3, lengths))
    start = len(TIME) + len(prompt)
    for answer in answers:
        ids = prompt + answer
        alone = hidden(ids, eeg_text_positions(TIME, len(ids)), eeg_text_mask(TIME, len(ids)))
        torch.testing.assert_close(tree[:, start : start + len(answer)], alone[:, -len(answer) :], atol=1e-5, rtol=1e-4)
        start += len(answer)


def test_takes_over_a_stage_1_tokenizer() -> None:
    model = tiny()
    trained = NeuralTokenizer(model.config.tokenizer)
    model.tokenizer.load_state_dict(trained.state_dict())
    batch = windows()
    features = model.features(*batch)
    codes = model.codes(features)
    torch.testing.assert_close(features, trained.eval().encode(*batch))
    assert torch.equal(codes, trained.codes(features))


def count(*parts: torch.nn.Module | torch.nn.Parameter) -> int:
    """Values of modules and parameters together."""
    return sum(one.numel() if isinstance(one, torch.nn.Parameter) else count(*one.parameters()) for one in parts)


RELEASED_COUNTS = {
    "tokenizer": (85_510_272, 85_510_272, 85_510_272),
    "wte": (38_633_472, 51_511_296, 80_486_400),
    "wpe": (786_432, 1_048_576, 1_638_400),
    "blocks": (85_054_464, 302_309_376, 1_475_558_400),
    "ln_f": (1_536, 2_048, 3_200),
    "lm_head": (44_924_928, 59_899_904, 93_593_600),
    "pos_embed": (196_608, 262_144, 409_600),
    "encode_transform_layer": (0, 787_456, 1_230_400),
    "total": (255_107_712, 501_331_072, 1_738_430_272),
    "trainable": (169_597_440, 415_820_800, 1_652_920_000),
}
"""Of NeuroLM-B, -L and -XL; the released files have no more than this of the tokenizer."""


@pytest.mark.parametrize(
    ("size", "width", "layers", "heads"), [(0, 768, 12, 12), (1, 1024, 24, 16), (2, 1600, 48, 25)], ids=["B", "L", "XL"]
)
def test_full_size_counts_equal_the_released_ones(size: int, width: int, layers: int, heads: int) -> None:
    language_model = LanguageModelConfig(hidden_size=width, num_layers=layers, num_heads=heads)
    with torch.device("meta"):
        model = NeuroLM(NeuroLMConfig(language_model=language_model))
    base = model.language_model.base
    found = {
        "tokenizer": count(model.tokenizer.encoder),
        "wte": count(base.wte),
        "wpe": count(base.wpe),
        "blocks": count(base.h),
        "ln_f": count(base.ln_f),
        "lm_head": count(model.language_model.head),
        "pos_embed": count(model.pos_embed),
        "encode_transform_layer": count(model.projection),
    }
    found["total"] = sum(found.values())
    found["trainable"] = count(*(one for one in model.parameters() if one.requires_grad))
    assert found == {name: counts[size] for name, counts in RELEASED_COUNTS.items()}
    assert model.num_classes == 58_496
